"""Pairs of any two classes, seen through a gate that the pair opens (Wu et al., 2024: SimLAP).

Two classes may be alike in some respects, which a gate on the embedding picks. The gate is a network of its own
on the means of the two classes' vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class ArbitraryPairs(NamedLoss):
    """Each row finds rows of a partner class, drawn for it, among rows of other classes (Wu et al., 2024)."""

    needs = frozenset({"embedding", "view", "gate"})
    fields = frozenset({"label"})
    searched = ("temperature", "penalty")
    across_rows = True

    temperature: float = 0.1  # cosines are divided by it
    penalty: float = 0.0  # weight of gate * (1 - gate), which makes gates open or shut

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature must be above 0", self.temperature)
        require(self.penalty >= 0, "penalty must be at least 0", self.penalty)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the loss of each row; `gate` is `(rows, width)` in (0, 1); the member draws `partner`."""
        import torch

        from shoal.trainables.objectives.arithmetic import log_sum, softplus

        label, partner, gate = batch["label"], batch["partner"], out["gate"]
        cosines = gated_cosines(out["embedding"], out["view"], gate) / numbers["temperature"]
        positive = label == partner[:, None]  # (rows, candidates)
        negative = ~positive & (label != label[:, None])
        below, there = log_sum(cosines, negative)
        # log(e^p + negatives) - p; without negatives it is 0
        each = softplus(below[:, None] - cosines)
        each = torch.where(there[:, None] & positive, each, torch.zeros_like(each))
        losses = each.sum(dim=-1) / positive.sum(dim=-1).clamp(min=1)
        return losses + numbers["penalty"] * (gate * (1 - gate)).mean(dim=-1), {}


def gated_cosines(anchors: Tensor, others: Tensor, gate: Tensor) -> Tensor:
    """Return the cosines of each anchor and all others, both times the anchor's gate: `(rows, rows)`.

    All are `(rows, width)`. Two products of matrices do, without a tensor of rows by rows by width.
    """
    import torch

    square = gate.square()
    along = (anchors * square) @ others.T
    lengths = (square * anchors.square()).sum(dim=-1, keepdim=True) * (square @ others.square().T)
    found: Tensor = along * torch.rsqrt(lengths.clamp(min=1e-24))
    return found
