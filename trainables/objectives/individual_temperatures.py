"""A temperature for each row, which the loss finds itself (Qiu et al., 2023: iSogCLR).

A row's temperature settles where the weights of its negatives are `nats` away from equal ones. Each row has
four
numbers that move with the weights: the logarithm of the moving average of its negatives, its temperature, that
temperature's momentum, and whether it has been seen.
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

MOST_HELD_ROWS = 4_000_000  # rows with numbers of their own: they travel with every copy of a member
STEEPEST_SLOPE = 3.0  # a temperature's slope is clipped to it
MOST_HEATED = 50.0  # a weight's logarithm stays below it


@dataclass(frozen=True)
class IndividualTemperatures(NamedLoss):
    """Decoupled contrast of two views, by a temperature that each `row` learns (Qiu et al., 2023)."""

    needs = frozenset({"embedding", "view"})
    fields = frozenset({"row"})
    searched = ("nats", "step", "rate", "first")
    across_rows = True
    stateful = True

    nats: float = 0.4  # distance of the negatives' weights from equal ones; below log(negatives); their rho
    step: float = 0.03  # by which a temperature moves; their eta
    rate: float = 0.8  # share of a new batch in a row's moving average; their gamma
    first: float = 0.1  # temperature of a row that is seen for the first time
    lowest: float = 0.05  # no temperature is lower
    highest: float = 1.0  # no temperature is higher
    momentum: float = 0.5  # share of the last slope in the next
    rows: int = 10_000  # rows that have a temperature; row n shares that of row n modulo this

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.nats > 0, "nats must be above 0", self.nats)
        require(self.step >= 0, "step must be at least 0", self.step)
        require(0 < self.rate <= 1, "rate must be above 0 and at most 1", self.rate)
        require(0 < self.lowest < self.highest, "lowest must be above 0 and below highest", self.lowest)
        require(self.first > 0, "first must be above 0", self.first)
        require(0 <= self.momentum < 1, "momentum must be at least 0 and below 1", self.momentum)
        fit = 1 <= self.rows <= MOST_HELD_ROWS
        require(
            fit, f"rows must be at least 1 and at most {MOST_HELD_ROWS}, since they are in each copy", self.rows
        )

    def misfit(self, sizes: Sizes) -> str:
        if sizes.rows < 2:
            return super().misfit(sizes)
        most = math.log(2 * (sizes.rows - 1))
        if self.nats < most:
            return ""
        return (
            f"nats must be below log(negatives) = {most:.4g} with batches of {sizes.rows} rows, or every "
            f"temperature falls to the lowest, got {self.nats}"
        )

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        import torch

        return {name: torch.zeros(self.rows) for name in ("level", "heat", "speed", "seen")}

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        import torch

        from shoal.trainables.objectives.arithmetic import own, unit

        one, other = unit(out["embedding"]), unit(out["view"])
        allowed = (~(batch["same"] if "same" in batch else own(one))).repeat(1, 2)
        row = batch["row"].long().remainder(self.rows)
        held = {name: values[row] for name, values in state.items()}
        fresh = held["seen"] == 0
        heat = torch.where(fresh, numbers["first"], held["heat"]).clamp(self.lowest, self.highest)
        sides = [torch.cat([a @ b.T, a @ a.T], dim=-1) for a, b in ((one, other), (other, one))]
        found = [self.side(each, allowed, heat, held["level"], fresh, numbers) for each in sides]
        losses, levels, slopes = ((a + b) / 2 for a, b in zip(*found, strict=True))
        slope = slopes.clamp(-STEEPEST_SLOPE, STEEPEST_SLOPE)
        speed = torch.where(fresh, slope, self.momentum * held["speed"] + (1 - self.momentum) * slope)
        moved = (heat - numbers["step"] * speed).clamp(self.lowest, self.highest)
        # without negatives a row has nothing to learn from
        there = allowed.any(dim=-1)
        told = {"level": levels, "heat": moved, "speed": speed, "seen": torch.ones_like(speed)}
        signals = {name: torch.where(there, value, held[name]).detach() for name, value in told.items()}
        losses = torch.where(there, losses - (one * other).sum(dim=-1), torch.zeros_like(losses))
        return losses, signals | {"row": row}

    def side(
        self, cosines: Tensor, allowed: Tensor, heat: Tensor, level: Tensor, fresh: Tensor, numbers: Numbers
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a view's loss without its positive, the row's new level, and its temperature's slope.

        Cosines and which are `allowed` are `(rows, candidates)`, all else is `(rows,)`. A level is the
        logarithm of the moving average of e^(cosine / temperature) over the negatives.
        """
        import torch

        from shoal.trainables.objectives.arithmetic import log_mean

        heated = cosines.detach() / heat[:, None]
        now, rate = log_mean(heated, allowed), torch.as_tensor(numbers["rate"]).to(level)
        mixed = ((1 - rate).clamp(min=1e-12).log() + level).logaddexp(rate.log() + now)
        level = torch.where(fresh, now, mixed)
        # mean 1 over the negatives if the average is that of this batch
        weight = (heated - level[:, None]).clamp(max=MOST_HEATED).exp() * allowed
        weight = weight / allowed.sum(dim=-1, keepdim=True).clamp(min=1)
        slope = level + numbers["nats"] - (weight * heated).sum(dim=-1)
        return (weight * cosines).sum(dim=-1), level, slope

    def after(self, state: State, signals: Signals, numbers: Numbers) -> State:
        row = signals["row"]
        return {name: value.scatter(0, row, signals[name].to(value)) for name, value in state.items()}
