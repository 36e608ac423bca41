"""Masked language modelling: tokens that are hidden are read from both sides (Devlin et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class MaskedTokens(NamedLoss):
    """A share of the tokens is hidden, and each is found from all others of its row (Devlin et al., 2019)."""

    needs = frozenset({"hidden_nats"})
    searched = ("share",)

    share: float = 0.15  # share of the tokens that are to be found in training; a score always hides 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.share < 1, "share must be above 0 and below 1", self.share)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the loss of each row, the mean over its hidden tokens in nats, as the model gives it.

        The model hides so many tokens as `share` says before it computes.
        """
        return out["hidden_nats"], {}
