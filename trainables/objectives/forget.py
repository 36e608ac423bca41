"""Forgetting rows of some groups, and keeping the others (Cha et al., 2025; Zhang et al., 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class Forget(NamedLoss):
    """Rows of some groups lose likelihood, those of the others train as always (Cha et al., 2025)."""

    needs = frozenset({"nats", "hinge"})
    fields = frozenset({"forget"})
    searched = ("retain", "beta")

    groups: tuple[str, ...] = ()  # the groups of `data.groups` whose rows are forgotten
    # hinge: 1 + p - the likeliest other p of each token, which stops by itself; negative: the whole row is to
    # lose likelihood since the model that members began with (NPO: Zhang et al., 2024)
    form: Literal["hinge", "negative"] = "hinge"
    retain: float = 1.0  # weight of the loss of rows of the other groups, in nats a token
    beta: float = 0.1  # negative: how sharply a loss of likelihood counts; large: it stops early

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.retain >= 0, "retain must be at least 0", self.retain)
        require(self.beta > 0, "beta must be above 0", self.beta)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the loss of each row; `forget`, `(rows,)`, is 1 for those that are forgotten.

        `nats` and `hinge` are means over the tokens of a row that count. With form negative `total` and
        `reference` are sums of their losses in nats, of the member and of the model that it began with.
        """
        import torch

        from shoal.trainables.objectives.arithmetic import softplus

        if self.form == "negative":
            beta = numbers["beta"]
            gone = 2 / beta * softplus(beta * (out["reference"] - out["total"]))
        else:
            gone = out["hinge"]
        return torch.where(batch["forget"] > 0, gone, numbers["retain"] * out["nats"]), {}
