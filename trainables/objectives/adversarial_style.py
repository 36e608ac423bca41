"""Means and deviations of feature maps, changed by what confuses the network most (Zhang et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class AdversarialStyle(NamedLoss):
    """Cross-entropy of images whose styles move where the loss rises (Zhang et al., 2023).

    Behind each convolution but the last, a third of the rows keep their style, a third get noise as wide as the
    batch's own spread, and a third noise as wide as what is learnt against the network.
    """

    needs = frozenset({"logits", "styles"})
    fields = frozenset({"label"})
    searched = ("strength", "ascent")
    alone = True

    strength: float = 1.0  # factor of the noise on means and deviations
    ascent: float = 0.1  # step by which the learnt widths rise along their gradient
    ascents: int = 3  # such steps before each step of training

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.strength >= 0, "strength must be at least 0", self.strength)
        require(self.ascent >= 0, "ascent must be at least 0", self.ascent)
        require(self.ascents >= 0, "ascents must be at least 0", self.ascents)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        from shoal.trainables.searched_numbers import cross_entropy

        return cross_entropy(out["logits"], batch["label"], numbers.get("label_smoothing", 0.0)), {}
