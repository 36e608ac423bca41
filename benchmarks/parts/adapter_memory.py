"""The memory of processes that train adapters or whole models, each measured in a process of its own."""

import json
import subprocess
import sys
from typing import Any

from benchmarks.parts import smollm
from benchmarks.parts.adapter_worker import LENGTH, MEMBERS, ROWS, member


def worker(kind: str, folder: str, members: int, rows: int, checkpointed: bool = True) -> dict[str, float]:
    """Train in a process of its own; return the bytes that it took."""
    words = [kind, folder, *map(str, (members, rows, LENGTH, int(checkpointed)))]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.parts.adapter_worker", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory(folder: str) -> dict[str, Any]:
    """Return the peaks of a worker with eight adapters, with one at equal rows in flight, and of peft.

    The file is in bfloat16, as the model's makers publish it, and all train in float32. `mapped` has the file
    in float32, which processes of one machine map and share. Layers are computed again in the backward pass,
    here and there; `kept` is the same without that.
    """
    half = smollm.half(folder)
    eight, one = worker("stack", half, MEMBERS, ROWS), worker("stack", half, 1, MEMBERS * ROWS)
    plain = worker("peft", half, 1, ROWS)
    return {
        "eight_over_one_memory": eight["peak"] / one["peak"],
        **beside_processes(eight, plain),
        "one_mib": one["peak"] / 2**20,
        "mapped": side_by_side(folder, checkpointed=True),
        "kept": side_by_side(half, checkpointed=False),
    }


def side_by_side(folder: str, checkpointed: bool) -> dict[str, float]:
    each = (worker("stack", folder, MEMBERS, ROWS, checkpointed), worker("peft", folder, 1, ROWS, checkpointed))
    return beside_processes(*each)


def beside_processes(eight: dict[str, float], plain: dict[str, float]) -> dict[str, float]:
    """Return a worker with eight adapters beside eight processes of peft; what these map they share."""
    return {
        "eight_peft_processes_over_eight": (MEMBERS * plain["own"] + plain["files"]) / eight["peak"],
        "eight_mib": eight["peak"] / 2**20,
        "peft_process_mib": plain["peak"] / 2**20,
    }


def weights_of(folder: str) -> int:
    """Return how many weights the model has, its tied ones once."""
    return sum(weight.numel() for weight in member(folder, 0, 1, 8, adapter=None).weights().values())


def full_memory(folder: str) -> dict[str, Any]:
    """Return the peak of a worker that trains all weights, copies and writes checkpoints, for each weight.

    A state of another process lies in the object store, whose mapped pages the worker only reads; `with_store`
    counts them too.
    """
    found, weights = worker("full", folder, 1, 1), weights_of(folder)
    return {
        "bytes_per_weight": found["without_store"] / weights,
        "bytes_per_weight_with_store": found["peak"] / weights,
        "full_mib": found["without_store"] / 2**20,
        "weights": weights,
    }
