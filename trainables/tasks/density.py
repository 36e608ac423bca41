"""Unnormalised densities: e^f(x) over a constant that nobody knows (Gutmann and Hyvarinen, 2010; MECO).

MECO estimates the constant by noise, with a moving average over batches (Wang and Yang, 2022): a mean within
one
small batch would bias the gradient. Both kinds need noise that covers the model: how well it does is measured.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.class_networks import HiddenLayers, Memory, memory_of, move_memory, scaled
from shoal.trainables.network import Network
from shoal.trainables.objectives.arithmetic import softplus
from shoal.trainables.searched_numbers import FloatOrTensor

SAMPLES = 4096  # noise points by which held-out rows are judged
JUDGED_WIDTH = 1.5  # deviations of that noise, in those of the data; no searched number is part of a score
LEAST_SHARE = 0.01  # effective share of the noise points; below it nothing is known of the constant
MOMENTUM = 0.1  # share of a new batch in mean and deviation of the noise


class Density(Network):
    """The logarithm of a density of a column `x`, up to a constant. The score is the held-out mean, in nats.

    `form: meco` estimates the constant by importance, `form: nce` learns it by telling rows from noise.
    """

    takes = frozenset({"columns"})
    by_row = True
    searched = frozenset({"rate", "wide"})
    features: int  # numbers of `x`
    x: str = "x"  # the column
    form: str = "meco"
    width: int = 64
    layers: int = 2
    rate: float = 0.1  # MECO: share of a new batch in the moving average; 1: none
    wide: float = 1.5  # deviation of the noise, in those of the data

    def build(self) -> nn.Module:
        if self.form not in ("meco", "nce"):
            raise ValueError(f"form must be meco or nce, but got {self.form}.")
        first = {name: torch.zeros(self.features) for name in ("mean", "square")}
        first |= {"level": torch.zeros(()), "seen": torch.zeros(())}
        body = HiddenLayers(self.features, self.width, self.layers)
        head = nn.Linear(self.width, 1)
        parts = {"body": body, "head": head, "shift": OneNumber(), "memory": Memory(first)}
        return nn.ModuleDict(parts)

    def values(self, module: Any, x: Tensor, rate: FloatOrTensor = 0.0) -> Tensor:
        """Return f of points `(rows, features)`, `(rows,)`: that of a wide Gaussian, and what is learnt."""
        held = memory_of(module)
        standard = (x - held["mean"]) / noise_spread(held)
        learnt: Tensor = module["head"](module["body"](standard, rate))[:, 0]
        return learnt - 0.5 * (standard / 2).square().sum(dim=-1) + module["shift"]()

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        x = scaled(batch[self.x]).flatten(start_dim=1)
        held = self.seen(module, x) if module.training else memory_of(module)
        width = noise_spread(held) * numbers["wide"]
        noise = held["mean"] + width * torch.randn_like(x)
        drop = numbers["dropout"]
        own, theirs = self.values(module, x, drop), self.values(module, noise, drop)
        logs = [normal_log(each, held["mean"], width) for each in (x, noise)]
        if self.form == "nce":
            return softplus(logs[0] - own) + softplus(theirs - logs[1])
        now = (theirs - logs[1]).detach()
        mean = now.logsumexp(dim=0) - math.log(len(now))
        rate = torch.as_tensor(numbers["rate"]).to(mean)
        mixed = ((1 - rate).clamp(min=1e-12).log() + held["level"]).logaddexp(rate.log() + mean)
        level = torch.where(held["seen"] > 0, mixed, mean)
        if module.training:
            move_memory(module, {"level": level, "seen": torch.ones_like(held["seen"])})
        # its gradient is that of the likelihood; its value is not
        return -own + ((now - level).clamp(max=30.0).exp() * theirs).mean()

    def seen(self, module: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """Move mean and deviation of the noise to those of a batch; return the memory."""
        held, first = memory_of(module), memory_of(module)["seen"] == 0
        new = {"mean": x.mean(dim=0), "square": x.square().mean(dim=0)}
        moved = {
            name: torch.where(first, each, (1 - MOMENTUM) * held[name] + MOMENTUM * each)
            for name, each in new.items()
        }
        move_memory(module, moved)
        return held | moved

    def judged(self, module: nn.Module, rows: Any) -> tuple[Tensor, Tensor]:
        """Return the log density of held-out rows, `(rows,)`, and the effective share of the noise."""
        held = memory_of(module)
        width = noise_spread(held) * JUDGED_WIDTH
        draws = torch.randn(SAMPLES, self.features, generator=torch.Generator().manual_seed(0)).to(width)
        noise = held["mean"] + width * draws
        logs = self.values(module, noise) - normal_log(noise, held["mean"], width)
        constant = logs.logsumexp(dim=0) - math.log(SAMPLES)
        share = (2 * logs.logsumexp(dim=0) - (2 * logs).logsumexp(dim=0)).exp() / SAMPLES
        return self.values(module, scaled(rows[self.x]).flatten(start_dim=1)) - constant, share

    def row_losses(self, module: nn.Module, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        found = {group: self.judged(module, each) for group, each in rows.items()}
        return {
            group: torch.where(share >= LEAST_SHARE, -logs, torch.nan) for group, (logs, share) in found.items()
        }

    def measures(self, module: nn.Module, rows: Any) -> dict[str, Tensor]:
        """Return the effective share of the noise points; below 0.01 the score is NaN."""
        logs, share = self.judged(module, rows)
        return {"covered": share.expand(len(logs))}


class OneNumber(nn.Module):
    """A number that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))

    def forward(self) -> Tensor:
        return self.value


def noise_spread(held: Mapping[str, Tensor]) -> Tensor:
    return (held["square"] - held["mean"].square()).clamp(min=1e-6).sqrt()


def normal_log(x: Tensor, mean: Tensor, width: Tensor) -> Tensor:
    """Return the log density of a Gaussian with these deviations at points `(rows, features)`: `(rows,)`."""
    return (-0.5 * ((x - mean) / width).square() - width.log() - 0.5 * math.log(2 * math.pi)).sum(dim=-1)
