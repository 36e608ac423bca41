"""In-batch negatives that a frozen guide takes for positives are left out (Solatorio, 2024: GISTEmbed)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State

NOTHING_LEFT_OUT = 3.0  # a margin by which no cosine can lie above another


@dataclass(frozen=True)
class Guided(NamedLoss):
    """Each query finds its positive among rows that a guide finds less near (Solatorio, 2024)."""

    needs = frozenset({"embedding", "view"})
    fields = frozenset({"guide_query", "guide_positive"})
    searched = ("temperature", "margin")
    across_rows = True

    temperature: float = 0.05  # cosines are divided by it
    margin: float = 0.0  # a candidate is left out if it is nearer in the guide than the positive minus this
    queries: bool = True  # other queries are candidates too, and so are positives for positives

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature must be above 0", self.temperature)
        most = NOTHING_LEFT_OUT
        require(-most <= self.margin <= 1, f"margin must be at least {-most} and at most 1", self.margin)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        import torch

        from shoal.trainables.objectives.arithmetic import unit

        query, positive = unit(out["embedding"]), unit(out["view"])
        guides = unit(batch["guide_query"]), unit(batch["guide_positive"])
        pairs = [(0, 1), (0, 0), (1, 1)] if self.queries else [(0, 1)]
        own, seen = torch.stack([query, positive]), torch.stack(guides)
        cosines = torch.cat([own[one] @ own[other].T for one, other in pairs], dim=1)
        guide = torch.cat([seen[one] @ seen[other].T for one, other in pairs], dim=1)
        return self.of(
            (query * positive).sum(dim=-1), cosines, guide, (seen[0] * seen[1]).sum(dim=-1), numbers
        ), {}

    def of(self, positive: Tensor, cosines: Tensor, guide: Tensor, level: Tensor, numbers: Numbers) -> Tensor:
        """Return each query's loss, of its candidates' cosines and the guide's, `(rows, blocks * rows)`.

        `positive` and `level` are the cosines with the positive and the guide's, `(rows,)`. A row's own places
        in the blocks are never candidates, whatever the guide finds.
        """
        import torch

        from shoal.trainables.objectives.arithmetic import log_sum
        from shoal.trainables.objectives.arithmetic import own as own_places

        itself = own_places(positive).repeat(1, cosines.shape[1] // len(positive))
        allowed = ~itself & (guide <= level[:, None] - numbers["margin"])
        heat = numbers["temperature"]
        below, there = log_sum(cosines / heat, allowed)
        top = positive / heat
        return torch.where(there, torch.logaddexp(top, below), top) - top
