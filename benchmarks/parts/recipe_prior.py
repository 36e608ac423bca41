"""Loss over coded size: decoders with a prior of several strengths, beside plain ones and beside weight decay.

A model is coded after its matrices are rounded to a quarter of their deviations. So its loss is measured before
and after the rounding, and with four of five weights of each matrix set to 0, those of least size.
"""

from typing import Any

import numpy as np

from benchmarks.parts.recipe_text import decoder
from benchmarks.quality import summary
from shoal.trainables.coding import STEP_OF_LEVELS, coded_size
from shoal.trainables.language import LanguageModel
from shoal.trainables.settings import Recipe

STEPS, WIDTH = 200, 64
LONG_STEPS, LARGE_WIDTH = 2000, 192
RECIPES: dict[str, dict[str, float]] = {
    "none": {"weight_decay": 0.0},
    "decay 0.1": {"weight_decay": 0.1},
    "laplace 0.01": {"weight_decay": 0.0, "prior": 0.01, "prior_shape": 1.0},
    "laplace 0.03": {"weight_decay": 0.0, "prior": 0.03, "prior_shape": 1.0},
    "laplace 0.1": {"weight_decay": 0.0, "prior": 0.1, "prior_shape": 1.0},
    "fitted 0.01": {"weight_decay": 0.0, "prior": 0.01},
}


def measure(seeds: int, full: bool) -> dict[str, Any]:
    steps, width = (LONG_STEPS, LARGE_WIDTH) if full else (STEPS, WIDTH)
    found: dict[str, Any] = {}
    for name, given in RECIPES.items():
        recipe = Recipe(**({"steps": steps, "warmup": 20, "learning_rate": 0.003} | given))  # type: ignore[arg-type]
        each = [measured(decoder(recipe, seed, width)) for seed in range(seeds)]
        found[name] = {key: summary([values[key] for values in each]) for key in each[0]}
        told = {key: value["mean"] for key, value in found[name].items()}
        print(f"prior: {name}: {told}", flush=True)
    return found


def measured(member: LanguageModel) -> dict[str, float]:
    member.train(member.recipe.steps)
    weights = member.state()["weights"]
    coded = coded_size(weights)
    found = {
        "loss": -member.evaluate()[0],
        "bits": coded.bits,
        "zeros": coded.zeros,
        "bytes": float(coded.bytes),
    }
    for name, change in (("rounded_loss", rounded), ("pruned_loss", pruned)):
        member.load_weights({key: change(value) if value.ndim > 1 else value for key, value in weights.items()})
        found[name] = -member.evaluate()[0]
    return found


def rounded(value: Any) -> Any:
    unit = STEP_OF_LEVELS * value.std()
    return (np.rint(value / unit) * unit).astype(value.dtype)


def pruned(value: Any) -> Any:
    return value * (np.abs(value) >= np.quantile(np.abs(value), 0.8))
