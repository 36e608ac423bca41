"""When a stack pays in one process: members of several sizes, trained one by one and as one stacked model.

No Ray. Both sides are Shoal's own; best of several repeats, since noise only ever slows. The rule in
`search/worker/teams.py` that stacks small members on a CPU rests on this. The last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.population import CORES, DEVICE, Perceptron, tokens
from shoal.trainables.batches import Shuffled
from shoal.trainables.language import LanguageModel
from shoal.trainables.network import Network
from shoal.trainables.settings import DecoderShape, Recipe
from shoal.trainables.stack import Stack

RECIPE = Recipe(steps=10_000)
ROW = "{:<34}{:>9}{:>9}{:>9}{:>14}{:>13}{:>11}"


def perceptron(number: int) -> Network:
    return Perceptron(RECIPE, {"learning_rate": 1e-4 * (1 + number)}, number, DEVICE)


def decoder(number: int, width: int, layers: int, length: int, rows: int) -> Network:
    held_out = {"validation": {"chance": tokens()[:16, :length]}}
    batches = Shuffled(tokens()[:, :length], rows)
    shape = DecoderShape(257, length, layers, 4, width)
    return LanguageModel(
        RECIPE, {"learning_rate": 1e-4 * (1 + number)}, batches, held_out, number, DEVICE, shape=shape
    )


CASES: dict[str, tuple[int, int, Callable[[int], Network]]] = {  # members, steps, how each is made
    "perceptron 784-64-10, batch 32": (32, 50, perceptron),
    "decoder 1 x 16, 4 rows of 16": (8, 40, lambda number: decoder(number, 16, 1, 16, 4)),
    "decoder 2 x 32, 8 rows of 64": (8, 20, lambda number: decoder(number, 32, 2, 64, 8)),
    "decoder 2 x 64, 8 rows of 64": (8, 10, lambda number: decoder(number, 64, 2, 64, 8)),
    "decoder 3 x 96, 8 rows of 128": (4, 5, lambda number: decoder(number, 96, 3, 128, 8)),
}


def seconds(work: Callable[[], Any], repeats: int) -> float:
    work()  # not timed: the first time allocates
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return min(spent)


def measure(name: str, threads: int, repeats: int, compile: bool) -> dict[str, Any]:
    members, steps, make = CASES[name]
    torch.set_num_threads(threads)
    alone, stack = (
        [make(number) for number in range(members)],
        Stack([make(number) for number in range(members)]),
    )
    each = seconds(lambda: [member.train(steps) for member in alone], repeats)
    together = seconds(lambda: stack.train(steps), repeats)
    found = {
        "weights": stack.weights.shape[1],
        "members": members,
        "threads": threads,
        "one_by_one_ms": round(1000 * each / steps / members, 3),
        "stacked_ms": round(1000 * together / steps / members, 3),
        "ratio": round(each / together, 2),
    }
    if not compile:
        return found
    compiled, began = Stack([make(number) for number in range(members)], compile=True), time.perf_counter()
    compiled.train(1)
    waited = time.perf_counter() - began
    step = seconds(lambda: compiled.train(steps), repeats)
    return found | {"compiled_ms": round(1000 * step / steps / members, 3), "compile_seconds": round(waited, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stack", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="20 repeats")
    parser.add_argument("--compile", action="store_true", help="also compiled stacks; with one thread only")
    arguments = parser.parse_args()
    repeats = 20 if arguments.full else arguments.repeats
    results = []
    print(f"{DEVICE}; ms per member-step")
    row = ROW + "{:>13}{:>17}" * arguments.compile
    heads = (
        "member",
        "weights",
        "members",
        "threads",
        "one by one",
        "stacked",
        "ratio",
        "compiled",
        "s to compile",
    )
    print(row.format(*heads))
    for name in CASES:
        for threads in [1] if arguments.compile else sorted({1, CORES}):
            found = measure(name, threads, repeats, arguments.compile)
            results.append({"case": name, **found})
            print(row.format(name, *found.values()), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
