"""Cross-entropy: the plain loss of a classifier, by which all classifiers are also judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class CrossEntropy(NamedLoss):
    """Cross-entropy of the labels; `training.label_smoothing` is a number of the recipe."""

    fields = frozenset({"label"})

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        from shoal.trainables.searched_numbers import cross_entropy

        return cross_entropy(out["logits"], batch["label"], numbers.get("label_smoothing", 0.0)), {}
