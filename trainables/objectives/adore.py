"""Negatives that the query finds now among all documents, weighed by ranks (Zhan et al., 2021: ADORE).

Documents are frozen vectors, so all of them can be searched at every step. A pair of the right document and
another weighs by how much the reciprocal rank would change if they changed places.
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
class Adore(NamedLoss):
    """Softplus of a found document's score minus the right one's, by their ranks (Zhan et al., 2021)."""

    needs = frozenset({"found"})
    fields = frozenset({"document"})
    searched = ("scale",)

    scale: float = 10.0  # cosines are multiplied by it
    depth: int = 200  # nearest documents that are compared with the right one
    # places that count: beyond it a reciprocal rank is 0. Without one, all weights were 0 in the paper's
    # program
    cut: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.scale > 0, "scale must be above 0", self.scale)
        require(self.depth >= 1, "depth must be at least 1", self.depth)
        require(self.cut >= 1, "cut must be at least 1, or every weight is 0 and nothing trains", self.cut)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the loss of each query; `found` has its cosine with every document, `(rows, documents)`."""
        import torch

        from shoal.trainables.objectives.arithmetic import softplus

        cosines, right = out["found"], batch["document"][:, None]
        level = cosines.gather(1, right)
        places = torch.arange(cosines.shape[1], device=cosines.device)
        others = cosines.masked_fill(places == right, -torch.inf)
        near = others.topk(min(self.depth, cosines.shape[1] - 1), dim=1).values
        ahead = (near > level).to(cosines.dtype)
        rank = 1 + ahead.sum(dim=1, keepdim=True)
        # a document behind the right one has a place more than among the others
        ranks = torch.arange(1, near.shape[1] + 1, device=near.device) + (1 - ahead)
        worth = self.worth(rank) - self.worth(ranks)
        found = softplus(numbers["scale"] * (near - level))
        return (worth.abs() * found).mean(dim=1), {}

    def worth(self, rank: Tensor) -> Tensor:
        """Return the reciprocal of ranks, which is 0 beyond the cut."""
        import torch

        return torch.where(rank <= self.cut, 1 / rank, torch.zeros_like(rank))
