"""SeTa: a window of difficulty that slides over the epochs (Zhou et al., 2025)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from shoal.policies.sampling.chance import uniform
from shoal.policies.sampling.clusters import cut_points
from shoal.policies.sampling.interface import Columns, Context, Decision, Ids, Plan, Spec, decision


@dataclass(frozen=True)
class SeTa:
    """Group the rows by their last loss into `groups` and keep those of `window` neighbouring groups.

    The first epoch keeps all groups. Then the window starts at group `epoch mod (groups - window + 1)`, easiest
    first, so it begins at the second. The paper gives the window as a share, which its code and text round
    differently; here it is a number. Before grouping, each row is dropped with chance `prune`. After the share
    `until` of the training only that chance remains. Nothing is rescaled: the gradient is biased by design.

    Rows without a loss are kept; rows with an infinite loss are in the hardest group. A row outside the window
    keeps its old loss, which becomes too high in time: after `age` epochs it is kept again.
    """

    spec: ClassVar[Spec] = Spec(
        "epoch", frozenset({"loss", "age"}), frozenset({"keep"}), "summary", "mean_count"
    )
    prune: float = 0.0
    groups: int = 10
    window: int = 5
    until: float = 0.875
    age: int = 12  # the window comes round in `groups - window + 1` epochs, by default 6

    def __post_init__(self) -> None:
        if not 0 <= self.prune <= 0.9:
            raise ValueError(f"prune must be in [0, 0.9], but got {self.prune}.")
        if not 1 <= self.window <= self.groups:
            raise ValueError(f"window must be 1 to groups ({self.groups}), but got {self.window}.")
        if not 0 <= self.until <= 1:
            raise ValueError(f"until must be in [0, 1], but got {self.until}.")
        if not self.age >= 1:
            raise ValueError(f"age must be at least 1 epoch, but got {self.age}.")

    def plan(self, ids: Ids, columns: Columns, context: Context) -> Plan:
        everything = Window(context.seed, context.epoch, self.prune, (), 0, 1, np.inf)
        if not context.epoch or not context.until(self.until):
            return everything
        losses = columns["loss"]
        drawn = uniform(context.seed, "prune", context.epoch, ids) >= self.prune
        cuts = cut_points(losses[drawn & np.isfinite(losses)], self.groups)
        groups = len(cuts) + 1  # fewer where few losses differ: with equal ones there is nothing to choose by
        window = min(self.window, groups)
        start = context.epoch % (groups - window + 1)
        return Window(
            context.seed, context.epoch, self.prune, tuple(cuts.tolist()), start, start + window, self.age
        )


@dataclass(frozen=True)
class Window(Plan):
    """Keep the groups `start ... end - 1` between the cuts, and the rows that were dropped `age` times."""

    seed: int
    epoch: int
    prune: float
    cuts: tuple[float, ...]
    start: int
    end: int
    age: float

    def decide(self, ids: Ids, columns: Columns) -> Decision:
        losses: NDArray[np.floating] = columns["loss"]
        group = np.searchsorted(np.array(self.cuts), losses.astype(np.float64), side="right")
        drawn = uniform(self.seed, "prune", self.epoch, ids) >= self.prune
        due = np.isnan(losses) | (columns["age"] >= self.age)
        return decision(due | (drawn & (self.start <= group) & (group < self.end)))
