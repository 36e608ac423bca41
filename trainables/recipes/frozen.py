"""Weights that patterns of their names choose, such as `blocks.0.*`: to freeze them, or to draw them anew."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn


def frozen_by(module: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the weights that a pattern names."""
    wanted = matching({name for name, _ in module.named_parameters()}, patterns, "freeze")
    for name, weight in module.named_parameters():
        weight.requires_grad_(name not in wanted)


def matching(names: set[str], patterns: Sequence[str], key: str) -> set[str]:
    """Return the names that fit a pattern; raises ValueError for a pattern that no name fits."""
    found: set[str] = set()
    for pattern in patterns:
        fit = {name for name in names if fnmatchcase(name, pattern)}
        if not fit:
            raise ValueError(f"{key} must name weights of the model, but none fits {pattern}.")
        found |= fit
    return found
