"""Pairs of a positive and a negative by the logistic loss, without a temperature (Zhan et al., 2021: STAR)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class Star(NamedLoss):
    """The mean over a batch's other positives of softplus(negative - positive) (Zhan et al., 2021)."""

    needs = frozenset({"embedding", "view"})
    searched = ("scale",)
    across_rows = True

    scale: float = 10.0  # cosines are multiplied by it; the paper has dot products, which have no bound

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.scale > 0, "scale must be above 0", self.scale)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        from shoal.trainables.objectives.arithmetic import own, softplus, unit

        query, positive = unit(out["embedding"]), unit(out["view"])
        allowed = (~(batch["same"] if "same" in batch else own(query))).to(query.dtype)
        apart = query @ positive.T - (query * positive).sum(dim=-1, keepdim=True)
        found = softplus(numbers["scale"] * apart) * allowed
        return found.sum(dim=-1) / allowed.sum(dim=-1).clamp(min=1.0), {}
