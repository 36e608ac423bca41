"""Whether experts behind a cooling gate learn two kinds of rows better than one layer does.

The first token of a row says which of two maps makes each next token out of the last two. A decoder with
one layer of width 32 trains for 600 steps, with one feed-forward layer, with one of twice the width, and
with two experts behind each gate. The last line is one JSON object: held-out nats, means and deviations of
5 seeds.
"""

import json
import statistics
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.trainables.batches import Shuffled
from shoal.trainables.language import LanguageModel
from shoal.trainables.settings import DecoderShape, Recipe

VOCABULARY, LENGTH, STEPS, SEEDS = 32, 16, 600, 5
SHAPES: dict[str, dict[str, Any]] = {
    "one": {},
    "one of twice the width": {"expansion": 2 * DecoderShape.expansion},
    "two, linear": {"experts": 2},
    "two, tanh": {"experts": 2, "gate": "tanh"},
    "two, linear, one of them judged": {"experts": 2, "active_experts": 1},
}


def rows_of_two_kinds(number: int, seed: int, truth: int) -> NDArray[np.uint16]:
    """Return rows `(number, LENGTH)`; `truth` draws the two maps."""
    drawn = np.random.default_rng(seed)
    maps = np.random.default_rng(truth).integers(2, VOCABULARY, (2, VOCABULARY, VOCABULARY))
    found = np.empty((number, LENGTH), np.uint16)
    found[:, 0] = kind = drawn.integers(0, 2, number)
    found[:, 1:3] = drawn.integers(2, VOCABULARY, (number, 2))
    for place in range(3, LENGTH):
        found[:, place] = maps[kind, found[:, place - 1], found[:, place - 2]]
    return found


def held_out_nats(shape: dict[str, Any], seed: int) -> float:
    train, validation = rows_of_two_kinds(4096, 1, seed), rows_of_two_kinds(512, 2, seed)
    member = LanguageModel(
        Recipe(steps=STEPS, warmup=20, learning_rate=5e-3),
        {},
        Shuffled(train, 32, seed),
        {"validation": {"rows": validation}},
        seed,
        shape=DecoderShape(VOCABULARY, LENGTH, layers=1, heads=2, width=32, **shape),
    )
    member.train(STEPS)
    return -member.evaluate()[0]


def main() -> None:
    result = {}
    for name, shape in SHAPES.items():
        nats = [held_out_nats(shape, seed) for seed in range(SEEDS)]
        result[name] = {"mean": round(statistics.mean(nats), 4), "deviation": round(statistics.stdev(nats), 4)}
        print(name, result[name], flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
