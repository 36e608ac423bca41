"""How many weights of each layer stay, where a network has only a share of them: plain numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

WeightSizes = Sequence[int]  # outputs, inputs, and further axes of a convolution

DENSITY_RULES = ("erk", "erk_plus", "uniform")
ORDER, COUNT = "mask_order", "mask_count"  # buffers of a layer with a mask
HALVINGS = 80  # until two densities are neighbours among floats


def layer_densities(sizes: Mapping[str, WeightSizes], density: float, rule: str) -> dict[str, float]:
    """Return the share of each layer's weights that stays, such that `density` of all weights do.

    `erk`: in proportion to the sum of a weight's sizes over their product (Evci et al., 2020), where a layer
    that would pass 1 stays whole. `erk_plus`: the last layer stays whole first (Liu et al., 2022). Raises
    ValueError where that alone is more than `density` allows.
    """
    if rule == "uniform":
        return dict.fromkeys(sizes, density)
    counts = {name: math.prod(each) for name, each in sizes.items()}
    whole = {list(sizes)[-1]} if rule == "erk_plus" else set[str]()
    while True:
        left = density * sum(counts.values()) - sum(counts[name] for name in whole)
        if left < 0:
            least = sum(counts[name] for name in whole) / sum(counts.values())
            raise ValueError(
                f"density must be at least {least:.4g} with densities: erk_plus, whose last layer stays whole, "
                f"but got {density:g}."
            )
        raw = {name: sum(sizes[name]) / counts[name] for name in sizes if name not in whole}
        if not raw:
            return dict.fromkeys(sizes, 1.0)
        factor = left / sum(raw[name] * counts[name] for name in raw)
        passed = {name for name in raw if factor * raw[name] > 1}
        if not passed:
            return {name: 1.0 if name in whole else factor * raw[name] for name in sizes}
        whole |= passed


def kept_counts(sizes: Mapping[str, WeightSizes], density: float, rule: str) -> dict[str, int]:
    """Return how many weights of each layer stay: `round(density * weights)` in all, exactly.

    A larger density never takes a weight from a layer. So the counts are those of one order in which weights
    come in: a layer's n-th weight comes in at the density where its share passes n - 1/2; of equals, layers in
    their order.
    """
    totals = {name: math.prod(each) for name, each in sizes.items()}
    wanted = round(density * sum(totals.values()))

    def at(share: float) -> dict[str, int]:
        shares = layer_densities(sizes, share, rule)
        return {name: min(math.floor(shares[name] * totals[name] + 0.5), totals[name]) for name in sizes}

    low, high = least_density(totals, rule), 1.0
    layer_densities(sizes, density, rule)  # raises where the density is too small for the rule
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(at(middle).values()) >= wanted else (middle, high)
    found, above = at(low), at(high)
    for name in sizes:
        missing = wanted - sum(found.values())
        found[name] += min(max(above[name] - found[name], 0), max(missing, 0))
    return found


def without_masks(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's weights without what belongs to its masks: what is not there is 0 already."""
    return {name: value for name, value in weights.items() if name.rpartition(".")[2] not in (ORDER, COUNT)}


def has_masks(weights: Mapping[str, Any]) -> bool:
    return len(without_masks(weights)) < len(weights)


def least_density(totals: Mapping[str, int], rule: str) -> float:
    return list(totals.values())[-1] / sum(totals.values()) if rule == "erk_plus" else 0.0
