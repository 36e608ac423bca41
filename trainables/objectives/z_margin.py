"""A margin on the standardised logit of the label: the Z-loss (de Brebisson and Vincent, 2016).

It does not change when all logits of a row are scaled or shifted, so only weight decay moves their scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, Sizes, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class ZMargin(NamedLoss):
    """Softplus of a margin minus the label's standardised logit (de Brebisson and Vincent, 2016)."""

    fields = frozenset({"label"})
    searched = ("sharpness", "margin")

    sharpness: float = 1.0  # how sharply the loss bends at the margin; their a
    margin: float = (
        1.0  # deviations that the label's logit lies above the mean; their b, below sqrt(classes - 1)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sharpness > 0, "sharpness must be above 0", self.sharpness)
        require(self.margin > 0, "margin must be above 0", self.margin)

    def misfit(self, sizes: Sizes) -> str:
        if not sizes.classes:
            return ""
        if sizes.classes < 3:
            return f"needs at least 3 classes: of two the standard logits are 1 and -1, got {sizes.classes}"
        largest = math.sqrt(sizes.classes - 1)
        if self.margin < largest:
            return ""
        return (
            f"margin must be below sqrt(classes - 1) = {largest:.4g}, the largest that a standard logit can "
            f"be, got {self.margin}"
        )

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        from shoal.trainables.objectives.arithmetic import softplus

        logits = out["logits"]
        centred = logits - logits.mean(dim=-1, keepdim=True)
        # a new head gives equal logits, whose deviation is 0
        spread = (centred.square().mean(dim=-1) + 1e-12).sqrt()
        standard = centred.gather(-1, batch["label"][:, None])[:, 0] / spread
        return softplus(numbers["sharpness"] * (numbers["margin"] - standard)) / numbers["sharpness"], {}
