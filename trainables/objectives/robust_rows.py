"""Rows with and without labels, moved to where their loss is largest for its cost (Saberi et al., 2024).

The labelled part is that of Sinha et al., 2018. Unlabelled rows have the label that the model gives them now,
so they push the boundary away from where rows are dense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class RobustRows(NamedLoss):
    """The largest of cross-entropy minus cost times squared distance, of each row (Saberi et al., 2024)."""

    needs = frozenset({"logits", "plain", "moved"})
    fields = frozenset({"label", "unlabelled"})
    searched = ("cost", "unlabelled_cost", "unlabelled")
    alone = True

    cost: float = 10.0  # price of a move by one deviation; large: labelled rows stay
    unlabelled_cost: float = 10.0  # price of such a move of a row without a label
    unlabelled: float = 0.1  # weight of the rows without labels
    ascents: int = 3  # steps by which a row moves

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.cost > 0, "cost must be above 0", self.cost)
        require(self.unlabelled_cost > 0, "unlabelled_cost must be above 0", self.unlabelled_cost)
        require(self.unlabelled >= 0, "unlabelled must be at least 0", self.unlabelled)
        require(self.ascents >= 1, "ascents must be at least 1", self.ascents)

    def moved(
        self,
        x: Tensor,
        forward: Callable[[Tensor], Mapping[str, Tensor]],
        batch: Mapping[str, Tensor],
        numbers: Numbers,
    ) -> Tensor:
        """Return the rows where they are worst; a step is exact where the loss is linear."""
        import torch
        from torch.nn.functional import cross_entropy

        with torch.no_grad():
            label = self.targets(forward(x)["logits"], batch)
        cost = self.costs(batch, numbers).to(x).view(-1, *[1] * (x.dim() - 1))
        found = x.detach()
        for _ in range(self.ascents):
            leaf = found.requires_grad_()
            [slope] = torch.autograd.grad(cross_entropy(forward(leaf)["logits"], label, reduction="sum"), leaf)
            found = (x + slope / (2 * cost)).detach()
        return found

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the loss of each row; `moved` is its squared distance from where it was, `(rows,)`."""
        import torch
        from torch.nn.functional import cross_entropy

        losses = cross_entropy(out["logits"], self.targets(out["plain"], batch), reduction="none")
        weight = torch.where(batch["unlabelled"] > 0, numbers["unlabelled"], 1.0).to(losses)
        return weight * (losses - self.costs(batch, numbers).to(losses) * out["moved"]), {}

    def targets(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        import torch

        return torch.where(batch["unlabelled"] > 0, logits.argmax(dim=-1), batch["label"])

    def costs(self, batch: Mapping[str, Tensor], numbers: Numbers) -> Tensor:
        import torch

        return torch.where(batch["unlabelled"] > 0, numbers["unlabelled_cost"], numbers["cost"])
