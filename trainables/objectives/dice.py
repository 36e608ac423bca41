"""The self-adjusting dice loss for rare classes (Li et al., 2020).

Its raw form has a trap: (1 - q)^alpha q peaks at q = 1 / (1 + alpha), so above that a right answer's loss rises
with its probability. By default the power is a weight without a gradient, and then there is no peak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State

STEEPEST = 0.1  # largest alpha of the form whose power has a gradient


@dataclass(frozen=True)
class Dice(NamedLoss):
    """One minus the dice coefficient of probabilities and labels, for rare classes (Li et al., 2020)."""

    fields = frozenset({"label"})
    searched = ("alpha", "smooth")

    alpha: float = 0.01  # power of 1 - q by which confident probabilities q count less
    smooth: float = 1.0  # added above and below the fraction; 0 is possible in the form of a batch
    form: Literal["rows", "batch"] = "rows"  # the coefficient of each row, or of each class over a whole batch
    squared: bool = False  # the sums below the fraction are of squares
    detach: bool = True  # the power is a weight without a gradient

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.alpha <= 1, "alpha must be at least 0 and at most 1", self.alpha)
        require(
            self.detach or self.alpha <= STEEPEST,
            f"alpha must be at most {STEEPEST} with detach: false, or a right answer's loss rises above the "
            f"probability 1 / (1 + alpha)",
            self.alpha,
        )
        low = self.smooth > 0 or (self.smooth == 0 and self.form == "batch")
        require(low, "smooth must be above 0", self.smooth)

    @property
    def by_row(self) -> bool:
        return self.form == "rows"

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        from torch.nn.functional import one_hot

        chances = out["logits"].softmax(dim=-1)
        labels = one_hot(batch["label"], chances.shape[-1]).to(chances.dtype)
        return self.of(chances, labels, numbers), {}

    def of(self, chances: Tensor, labels: Tensor, numbers: Numbers) -> Tensor:
        """Return the loss of probabilities `(rows, classes)` and labels of 0 and 1 of the same shape."""
        from shoal.trainables.objectives.arithmetic import powered

        power = powered(1 - chances, numbers["alpha"])
        found = (power.detach() if self.detach else power) * chances
        above, below = found * labels, (found.square() + labels) if self.squared else found + labels
        if self.form == "batch":
            above, below = above.sum(dim=0), below.sum(dim=0)
        smooth = numbers["smooth"]
        loss = (1 - (2 * above + smooth) / (below + smooth)).sum(dim=-1)
        return loss / labels.shape[-1] if self.form == "batch" else loss
