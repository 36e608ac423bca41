"""Forgetting answers without breaking the model: the inverted hinge (Cha et al., 2025).

Pairs have what is to be kept as the better answer, and what is to be forgotten as the worse one. Where a
token's
probability is lowered, the hinge raises the likeliest other token alone, and it stops by itself: gradient
ascent on the loss has no end, and spreads over the whole vocabulary.
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
class InvertedHinge(NamedLoss):
    """1 + p - other p, the mean over a worse answer's tokens, and a better one's loss (Cha et al., 2025)."""

    needs = frozenset({"chosen", "rejected", "rejected_hinge"})
    searched = ("retain",)

    retain: float = 1.0  # weight of the better answer's own loss, in nats a token

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.retain >= 0, "retain must be at least 0", self.retain)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the loss of each pair; `rejected_hinge`, `(rows,)`, sums `hinge` over the answer's tokens."""
        kept = -out["chosen"] / out["chosen_length"].clamp(min=1.0)
        return out["rejected_hinge"] / out["rejected_length"].clamp(min=1.0) + numbers["retain"] * kept, {}


def hinge(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 + p of the target - the largest other p, in [0, 2]: logits `(..., classes)`, targets `(...)`."""
    chances = (logits if logits.dtype.itemsize >= 4 else logits.float()).softmax(dim=-1)
    own = chances.gather(-1, targets[..., None])
    others = chances.scatter(-1, targets[..., None], -1.0).amax(dim=-1)
    return 1 + own[..., 0] - others
