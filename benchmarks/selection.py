"""Choosing rows before training: what each method finds, beside chance, an oracle, exact results and its peer.

    python -m benchmarks.selection --peer FOLDER --only dsir,noise

`--peer` is a folder with the package data-selection and nltk (`pip install --target FOLDER --no-deps
data-selection nltk`); without it nothing is said about the peer. The digits are scikit-learn's. Each part
takes one core; but for those that measure rates and memory two run at once. The last line is one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from benchmarks.parts import digits_choices, dsir_choices, lookups, pool
from benchmarks.quality import better, summary

SEEDS = 5


def dsir(given: argparse.Namespace) -> dict[str, Any]:
    found = dsir_choices.dsir(given.corpus, given.megabytes, given.steps, 2 * given.times)
    if given.peer:
        found |= dsir_choices.beside_peer(given.corpus, given.megabytes, given.peer)
    return found


def noise(given: argparse.Namespace) -> dict[str, Any]:
    return {
        f"{share:.0%}": summaries([digits_choices.noise(share, seed) for seed in range(SEEDS * given.times)])
        for share in (0.2, 0.4)
    }


def influence(given: argparse.Namespace) -> dict[str, Any]:
    """Without a hidden layer the Hessian can be inverted; with one it can be trained again."""
    seeds, rows = range(2 * given.times), 40
    shapes = {"convex": 0, "network": 8}
    found = {
        name: summaries([digits_choices.against_exact(seed, hidden, rows) for seed in seeds])
        for name, hidden in shapes.items()
    }
    return found | {
        "exact_correlation": found["convex"]["exact"]["mean"],
        "retraining_correlation": found["network"]["retraining"]["mean"],
    }


def subsets(given: argparse.Namespace) -> dict[str, Any]:
    each = [digits_choices.subsets(seed) for seed in range(SEEDS * given.times)]
    found: dict[str, Any] = {}
    for name in ("quantise", "tarot"):
        runs = [one[name] for one in each]
        found[name] = summaries(runs)
        for other in ("random", "top"):
            values, others = ([run[key] for run in runs] for key in (name, other))
            found[name][f"better_than_{other}"] = better(values, others, higher=True)
    return found


def attention_influence(given: argparse.Namespace) -> dict[str, Any]:
    return lookups.attention_influence(0, given.lookup_steps)


def searched(given: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.parts.searched_share import searched_share

    return searched_share(given.corpus, SEEDS, given.times)


def memory(given: argparse.Namespace) -> dict[str, Any]:
    """Return what a decision holds of each row; `benchmarks.memory --selection` has the whole, on a cluster."""
    with tempfile.TemporaryDirectory() as folder:
        return {"bytes_a_row": pool.bytes_a_row(folder, 20 * given.times)}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "dsir": dsir,
    "noise": noise,
    "influence": influence,
    "subsets": subsets,
    "attention_influence": attention_influence,
    "searched": searched,
    "memory": memory,
}

ALONE = ("dsir", "memory")  # these measure rates and memory


def summaries(runs: list[dict[str, float]]) -> dict[str, Any]:
    return {name: summary([run[name] for run in runs]) for name in runs[0]}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=__doc__)
    parser.add_argument(
        "--corpus", default="runs/corpus/selection-benchmark", help="where the text is, or goes"
    )
    parser.add_argument("--peer", default="", help="folder of the package data-selection and of nltk")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--at-once", type=int, default=2, help="parts at once, each on one core")
    parser.add_argument("--full", action="store_true", help="more text, steps and seeds")
    given = parser.parse_args(arguments)
    given.times = 3 if given.full else 1
    given.megabytes, given.steps = (8.0, 1200) if given.full else (1.0, 200)
    given.lookup_steps = 4000 if given.full else 1200
    return given


def told_by(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return what a part says, under the keys of the last line."""
    began = time.perf_counter()
    told = PARTS[name](given)
    print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    # one program makes the subsets of both
    return told if name == "subsets" else {name: told}


def told_apart(name: str, arguments: list[str]) -> dict[str, Any]:
    """Return what a part says in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.selection", *arguments, "--only", name, "--at-once", "1"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    told: dict[str, Any] = json.loads(said.splitlines()[-1])
    return told


def main(arguments: list[str]) -> None:
    given = parse(arguments)
    torch.set_num_threads(1)
    names = given.only.split(",")
    apart = [name for name in names if name not in ALONE and given.at_once > 1]
    found: dict[str, Any] = {}
    for name in names:
        if name not in apart:
            found |= told_by(name, given)
    with ThreadPoolExecutor(given.at_once) as pool_:
        for told in pool_.map(lambda name: told_apart(name, arguments), apart):
            found |= told
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
