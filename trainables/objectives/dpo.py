"""Direct preference optimisation, and its relatives (Rafailov et al., 2023; Azar et al., 2024: IPO)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class DPO(NamedLoss):
    """The better answer gains likelihood over the worse one, since the reference (Rafailov et al., 2023)."""

    needs = frozenset({"chosen", "rejected"})
    searched = ("beta", "flipped", "sft")

    beta: float = 0.1  # how sharply a margin counts; small: far from the reference
    # sigmoid: logistic loss of the margin; hinge; squared: to a margin of 1 / (2 beta) a token (IPO);
    # negative: the worse answer alone is to lose (NPO: Zhang et al., 2024), which forgets it
    form: Literal["sigmoid", "hinge", "squared", "negative"] = "sigmoid"
    flipped: float = 0.0  # sigmoid: share of the pairs that are taken to be the wrong way round
    sft: float = 0.0  # weight of the chosen answer's own loss, in nats a token: it holds its likelihood up

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, "beta must be above 0", self.beta)
        require(0 <= self.flipped < 0.5, "flipped must be at least 0 and below 0.5", self.flipped)
        require(not self.flipped or self.form == "sigmoid", "flipped must be 0 with this form", self.flipped)
        require(self.sft >= 0, "sft must be at least 0", self.sft)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the loss of each pair.

        `out` has sums of log-probabilities over an answer's tokens, of the member and of the reference, and the
        numbers of these tokens, all `(rows,)`.
        """
        from shoal.trainables.objectives.arithmetic import softplus

        gains = [out[each] - out[f"{each}_reference"] for each in ("chosen", "rejected")]
        lengths = [out[f"{each}_length"].clamp(min=1.0) for each in ("chosen", "rejected")]
        beta, margin = numbers["beta"], gains[0] - gains[1]
        if self.form == "squared":
            found = (gains[0] / lengths[0] - gains[1] / lengths[1] - 1 / (2 * beta)).square()
        elif self.form == "hinge":
            found = (1 - beta * margin).relu()
        elif self.form == "negative":
            found = 2 / beta * softplus(beta * gains[1])
        else:
            flipped = numbers["flipped"]
            found = (1 - flipped) * softplus(-beta * margin) + flipped * softplus(beta * margin)
        return found - numbers["sft"] * out["chosen"] / lengths[0], {}
