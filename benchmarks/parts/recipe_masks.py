"""Loss over density: a wide decoder of which a share of the weights is there, beside dense ones of equal size.

"Equal size" is as many weights in the blocks. Embedding and head are whole in all, so the wide decoder's are
larger. Both train the same steps on the same rows: at equal size the masked one takes the time of the whole.
"""

from typing import Any

import numpy as np

from benchmarks.parts.recipe_text import HEAD, decoder, loss_after
from benchmarks.quality import summary
from shoal.trainables.settings import Recipe

STEPS, WIDTH = 200, 96
LONG_STEPS, LARGE_WIDTH = 2000, 192
SHARES = (1 / 9, 1 / 4, 4 / 9, 1.0)  # squares, so that dense decoders of these shares have whole heads


def measure(seeds: int, full: bool) -> dict[str, Any]:
    width = LARGE_WIDTH if full else WIDTH
    recipe = Recipe(steps=LONG_STEPS if full else STEPS, warmup=20, learning_rate=0.003)
    thin = {rule: losses_of(recipe, seeds, width, rule) for rule in ("erk", "uniform")}
    dense = {share: dense_losses(recipe, seeds, round(width * share**0.5 / HEAD) * HEAD) for share in SHARES}
    for share in SHARES:
        told = ", ".join(
            f"{rule} {np.mean(found[share]):.4f}" for rule, found in thin.items() if share in found
        )
        print(
            f"masks: {share:.2g} of the blocks' weights: dense {np.mean(dense[share]):.4f}; {told}", flush=True
        )
    return {
        "dense_of_equal_size": {f"{share:.2g}": summary(each) for share, each in dense.items()},
        **{
            rule: {f"{share:.2g}": summary(each) for share, each in found.items()}
            for rule, found in thin.items()
        },
        # below 0 the masked one is better; of one seed both see the same rows
        "erk_less_dense": {f"{share:.2g}": less(thin["erk"][share], dense[share]) for share in SHARES},
    }


def losses_of(recipe: Recipe, seeds: int, width: int, rule: str) -> dict[float, list[float]]:
    shares = [share for share in SHARES if rule == "erk" or share < 0.3]
    recipes = {share: Recipe(**{**vars(recipe), "density": share, "densities": rule}) for share in shares}
    return {
        share: [loss_after(decoder(each, seed, width)) for seed in range(seeds)]
        for share, each in recipes.items()
    }


def dense_losses(recipe: Recipe, seeds: int, width: int) -> list[float]:
    return [loss_after(decoder(recipe, seed, width)) for seed in range(seeds)]


def less(values: list[float], others: list[float]) -> dict[str, Any]:
    return summary([one - other for one, other in zip(values, others, strict=True)])
