"""Loss over bits: a decoder whose linear layers compute with few bits, emulated, beside the same in float32.

All start with the same weights and see the same rows. Nothing is faster here: an emulated step takes longer.
"""

import time
from typing import Any, NamedTuple

import numpy as np

from benchmarks.parts.recipe_text import decoder, loss_after
from benchmarks.quality import summary
from shoal.trainables.settings import Recipe

STEPS, WIDTH = 150, 48
LONG_STEPS, LARGE_WIDTH = 2000, 96


class Rounding(NamedTuple):
    bits: int
    elements: str = "float"
    rounding: str = "nearest"

    @property
    def name(self) -> str:
        return f"{self.bits} {self.elements} {self.rounding}" if self.bits < 16 else str(self.bits)


ROUNDINGS = (
    *map(Rounding, (32, 16, 8, 6, 4)),
    Rounding(8, rounding="stochastic"),
    Rounding(4, rounding="stochastic"),
    Rounding(8, "int"),
    Rounding(8, "int", "stochastic"),
    Rounding(4, "int"),
)


def measure(seeds: int, full: bool) -> dict[str, Any]:
    steps, width = (LONG_STEPS, LARGE_WIDTH) if full else (STEPS, WIDTH)
    losses: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for each in ROUNDINGS:
        recipe = Recipe(steps=steps, warmup=20, learning_rate=0.003, **each._asdict())
        began = time.process_time()
        losses[each.name] = [loss_after(decoder(recipe, seed, width)) for seed in range(seeds)]
        seconds[each.name] = (time.process_time() - began) / seeds
        print(
            f"bits: {each.name}: {np.mean(losses[each.name]):.4f}, {seconds[each.name]:.1f} core-seconds",
            flush=True,
        )
    whole = losses["32"]
    return {
        "loss": {name: summary(each) for name, each in losses.items()},
        # above 0 rounding costs; of one seed all see the same rows
        "less_float32": {
            name: summary([one - other for one, other in zip(each, whole, strict=True)])
            for name, each in losses.items()
            if name != "32"
        },
        "core_seconds_over_float32": {name: round(each / seconds["32"], 2) for name, each in seconds.items()},
    }
