"""Plain settings of the trainables, readable without torch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; `width` is divided evenly among the heads."""

    vocabulary: int
    sequence_length: int
    layers: int = 4
    heads: int = 4
    width: int = 128
    expansion: float = 4.0

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width / heads must be a whole even number (rotary positions turn pairs), "
                f"but got width={self.width}, heads={self.heads}."
            )


@dataclass(frozen=True)
class Recipe:
    """How a member trains. Every number here can be a searched hyperparameter."""

    steps: int = 200
    warmup: int = 20
    final_rate: float = 0.1  # share of the learning rate that is left at the last step
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    dropout: float = 0.0
    clip: float = 1.0


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step counted from 0: linear warm-up, then a half cosine down."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = min((step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1), 1.0)
    share = recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * share
