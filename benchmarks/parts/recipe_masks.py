"""Loss over density: a wide decoder of which a share of the weights is there, beside dense ones of equal size.

"Equal size" is as many weights in the blocks, and in `erk_equal_total` as many in all: embedding and head are
never masked, so the wide decoder's are larger. All train the same steps on the same rows, and a masked decoder
takes the time of the whole one.
"""

from typing import Any

import numpy as np

from benchmarks.parts.recipe_text import HEAD, decoder, loss_after
from benchmarks.quality import summary
from shoal.trainables.language import LanguageModel
from shoal.trainables.settings import Recipe

STEPS, WIDTH = 200, 96
LONG_STEPS, LARGE_WIDTH = 2000, 192
SHARES = (1 / 9, 1 / 4, 4 / 9, 1.0)  # squares, so that dense decoders of these shares have whole heads


def measure(seeds: int, full: bool) -> dict[str, Any]:
    width = LARGE_WIDTH if full else WIDTH
    recipe = Recipe(steps=LONG_STEPS if full else STEPS, warmup=20, learning_rate=0.003)
    thin = {rule: losses_of(recipe, seeds, width, rule) for rule in ("erk", "uniform")}
    dense = {share: dense_losses(recipe, seeds, width_of(width, share)) for share in SHARES}
    total = {share: equal_total(recipe, seeds, width, share) for share in SHARES if share < 1}
    for share in SHARES:
        told = ", ".join(
            f"{rule} {np.mean(found[share]):.4f}" for rule, found in thin.items() if share in found
        )
        told += f"; of equal total {np.mean(total[share]):.4f}" if share in total else ""
        print(
            f"masks: {share:.2g} of the blocks' weights: dense {np.mean(dense[share]):.4f}; {told}", flush=True
        )
    return {
        "dense_of_equal_size": {f"{share:.2g}": summary(each) for share, each in dense.items()},
        **{
            rule: {f"{share:.2g}": summary(each) for share, each in found.items()}
            for rule, found in thin.items()
        },
        "erk_equal_total": {f"{share:.2g}": summary(each) for share, each in total.items()},
        # below 0 the masked one is better; of one seed both see the same rows
        "erk_equal_total_less_dense": {f"{share:.2g}": less(total[share], dense[share]) for share in total},
        "erk_less_dense": {f"{share:.2g}": less(thin["erk"][share], dense[share]) for share in SHARES},
    }


def losses_of(recipe: Recipe, seeds: int, width: int, rule: str) -> dict[float, list[float]]:
    shares = [share for share in SHARES if rule == "erk" or share < 0.3]
    recipes = {share: Recipe(**{**vars(recipe), "density": share, "densities": rule}) for share in shares}
    return {
        share: [loss_after(decoder(each, seed, width)) for seed in range(seeds)]
        for share, each in recipes.items()
    }


def equal_total(recipe: Recipe, seeds: int, width: int, share: float) -> list[float]:
    """Return losses of a masked decoder with as many weights in all as the dense one of a share has."""
    narrow = width_of(width, share)
    sizes = [weights_of(decoder(recipe, 0, each)) for each in (width, narrow)]
    blocks, others = sizes[0]
    density = (sum(sizes[1]) - others) / blocks
    thin = Recipe(**{**vars(recipe), "density": density})
    return [loss_after(decoder(thin, seed, width)) for seed in range(seeds)]


def weights_of(member: LanguageModel) -> tuple[int, int]:
    """Return how many weights of a member can be masked, and how many others it has."""
    sizes = {name: weight.numel() for name, weight in member.weights().items()}
    blocks = sum(size for name, size in sizes.items() if name.startswith("blocks.") and "norm" not in name)
    return blocks, sum(sizes.values()) - blocks


def width_of(width: int, share: float) -> int:
    """Return the width of a dense decoder whose blocks have this share of a wider one's weights."""
    return round(width * share**0.5 / HEAD) * HEAD


def dense_losses(recipe: Recipe, seeds: int, width: int) -> list[float]:
    return [loss_after(decoder(recipe, seed, width)) for seed in range(seeds)]


def less(values: list[float], others: list[float]) -> dict[str, Any]:
    return summary([one - other for one, other in zip(values, others, strict=True)])
