"""A teacher that is the average of what the student will be after some steps (Du et al., 2022: FST)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class FutureTeacher(NamedLoss):
    """Cross-entropy of labels, and of a teacher's sure guesses on rows without (Du et al., 2022).

    Before each step the student takes `ahead` steps that are taken back, and the teacher averages over them.
    With `ahead: 0` this is the mean teacher (Tarvainen and Valpola, 2017).
    """

    needs = frozenset({"logits", "teacher"})
    fields = frozenset({"label", "unlabelled"})
    searched = ("threshold", "unlabelled", "decay")
    across_rows = True
    alone = True

    threshold: float = 0.95  # a guess of this probability is learnt
    unlabelled: float = 1.0  # weight of the rows without labels, times the share of sure ones
    decay: float = 0.99  # share of the teacher that a step leaves, however many steps it looks ahead
    ahead: int = 2  # steps that are taken back; each costs as much as a step

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.threshold < 1, "threshold must be above 0 and below 1", self.threshold)
        require(self.unlabelled >= 0, "unlabelled must be at least 0", self.unlabelled)
        require(0 <= self.decay < 1, "decay must be at least 0 and below 1", self.decay)
        require(self.ahead >= 0, "ahead must be at least 0", self.ahead)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        import torch
        from torch.nn.functional import cross_entropy

        unknown = batch["unlabelled"] > 0
        best, guess = out["teacher"].detach().softmax(dim=-1).max(dim=-1)
        sure = (unknown & (best >= numbers["threshold"])).to(best.dtype)
        share = sure.sum() / unknown.sum().clamp(min=1)
        losses = cross_entropy(out["logits"], torch.where(unknown, guess, batch["label"]), reduction="none")
        return torch.where(unknown, numbers["unlabelled"] * share * sure * losses, losses), {}

    def teaching(self, trained: int, numbers: Numbers) -> float:
        """Return the share of the teacher that one of a step's averages leaves; it grows in the first steps."""
        whole = min(float(numbers["decay"]), 1 - 1 / (trained + 1))
        return float(whole ** (1 / (self.ahead + 1)))
