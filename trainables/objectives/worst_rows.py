"""Rows of a large loss weigh more: KL-regularised robust training (Hu and Hong, 2013; Qi et al., 2021).

A weight is e^(L / r) over its mean, which is a moving average over batches: within one small batch the softmax
would weigh too evenly. The average is kept as a logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State

OVER = 2.5  # steps of an ascent could go so many times as far as its reach
MOST = 50.0  # a weight's logarithm stays below it


@dataclass(frozen=True)
class WorstRows(NamedLoss):
    """Cross-entropy whose rows weigh e^(loss / radius) over its moving average (Qi et al., 2021)."""

    fields = frozenset({"label"})
    searched = ("radius", "cap", "reach")
    stateful = True

    radius: float = 1.0  # small: the worst rows decide; large: all rows weigh the same
    cap: float = 10.0  # a loss counts as at most this in its weight: rows of wrong labels own the tail
    rate: float = 0.1  # share of a new batch in the moving average
    # steps by which inputs first move to where they are wrong most (Madry et al., 2018); 0: they stay
    ascents: int = 0
    reach: float = 0.1  # an input moves by at most this, in deviations

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.radius > 0, "radius must be above 0", self.radius)
        require(self.cap > 0, "cap must be above 0", self.cap)
        require(0 < self.rate <= 1, "rate must be above 0 and at most 1", self.rate)
        require(self.ascents >= 0, "ascents must be at least 0", self.ascents)
        require(self.reach > 0, "reach must be above 0", self.reach)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"logits", "moved"} if self.ascents else {"logits"})

    @property
    def alone(self) -> bool:  # type: ignore[override]
        return self.ascents > 0

    def moved(
        self,
        x: Tensor,
        forward: Callable[[Tensor], Mapping[str, Tensor]],
        batch: Mapping[str, Tensor],
        numbers: Numbers,
    ) -> Tensor:
        """Return rows within reach where their loss is large, by steps along the signs of its slope."""
        import torch
        from torch.nn.functional import cross_entropy

        reach, found = torch.as_tensor(numbers["reach"]).to(x), x.detach()
        for _ in range(self.ascents):
            leaf = found.requires_grad_()
            losses = cross_entropy(forward(leaf)["logits"], batch["label"], reduction="sum")
            [slope] = torch.autograd.grad(losses, leaf)
            step = leaf - x + OVER * reach / self.ascents * slope.sign()
            found = (x + step.clamp(-reach, reach)).detach()
        return found

    def start(self, sizes: object) -> dict[str, Tensor]:
        import torch

        return {"level": torch.zeros(()), "seen": torch.zeros(())}

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        import torch

        from shoal.trainables.searched_numbers import cross_entropy

        losses = cross_entropy(out["logits"], batch["label"], numbers.get("label_smoothing", 0.0))
        tilted = losses.detach().clamp(max=numbers["cap"]) / numbers["radius"]
        now = tilted.logsumexp(dim=0) - math.log(len(losses))
        level = torch.where(state["seen"] > 0, self.mixed(state["level"], now), now)
        return (tilted - level).clamp(max=MOST).exp() * losses, {"level": level}

    def mixed(self, old: Tensor, new: Tensor) -> Tensor:
        """Return the logarithm of the moving average with a new batch, from logarithms."""
        if self.rate == 1:
            return new
        return (old + math.log(1 - self.rate)).logaddexp(new + math.log(self.rate))

    def after(self, state: State, signals: Signals, numbers: Numbers) -> State:
        import torch

        return {"level": signals["level"], "seen": torch.ones_like(state["seen"])}
