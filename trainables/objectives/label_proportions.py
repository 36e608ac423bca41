"""Labels of bags: the shares of the classes in each are known, but no row's class (Ardehali et al., 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class LabelProportions(NamedLoss):
    """Cross-entropy of a bag's known shares and the mean prediction of its rows (Ardehali and Culotta, 2017).

    The rows of a bag that are in a batch stand for the whole of it, so large bags suffer less from being cut. A
    row's label is not looked at.
    """

    fields = frozenset({"bag", "shares"})
    searched = ("sureness",)
    across_rows = True

    sureness: float = 0.0  # weight of each row's entropy: rows of mixed bags then take sides

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sureness >= 0, "sureness must be at least 0", self.sureness)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        logs = out["logits"].log_softmax(dim=-1)
        chances, bag = logs.exp(), batch["bag"]
        together = (bag[:, None] == bag).to(chances.dtype)  # (rows, rows)
        mean = together @ chances / together.sum(dim=-1, keepdim=True)
        shares = batch["shares"].to(chances.dtype)
        losses = -(shares * mean.clamp(min=1e-12).log()).sum(dim=-1)
        return losses - numbers["sureness"] * (chances * logs).sum(dim=-1), {}
