"""What do recipes cost and bring? Each part prints its numbers; `--part NAME` measures one alone.

The parts are programs of `benchmarks/parts/`: each has `measure(seeds, full)`, which returns plain values, and
prints what it sees on its way. Settings were chosen on seed 77. The last line printed is one JSON object.
"""

import argparse
import json
import time
from importlib import import_module
from typing import Any

import torch

# part -> its module, which is imported only where the part is measured
PARTS = {
    "masks": "benchmarks.parts.recipe_masks",
    "bits": "benchmarks.parts.recipe_bits",
    "v_cycle": "benchmarks.parts.recipe_cycle",
    "prior": "benchmarks.parts.recipe_prior",
    "sst": "benchmarks.parts.recipe_spectral",
}


def measure_part(name: str, seeds: int, full: bool) -> dict[str, Any]:
    began = time.perf_counter()
    found: dict[str, Any] = import_module(PARTS[name]).measure(seeds, full)
    return found | {"seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="longer runs of larger networks")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps({name: measure_part(name, arguments.seeds, arguments.full) for name in arguments.part}))


if __name__ == "__main__":
    main()
