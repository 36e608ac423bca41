"""RS2: every epoch another random subset (Okanovic et al., 2023)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shoal.policies.sampling.chance import keys, uniform
from shoal.policies.sampling.interface import Columns, Context, Decision, Ids, Plan, Spec, decision


@dataclass(frozen=True)
class RandomSubset:
    """Keep a share of the rows, drawn anew each epoch or, by default, without replacement over the epochs.

    Without replacement a permutation is cut into `floor(1 / ratio)` slices, one for each epoch, and drawn anew
    when they are used up. A ratio such as 0.3 leaves some rows over, which are skipped in that cycle. The size
    of a slice is binomial.
    """

    spec: ClassVar[Spec] = Spec("epoch", frozenset(), frozenset({"keep"}), "none", "mean_count")
    ratio: float = 0.1  # share of the rows that an epoch keeps
    replacement: bool = False  # draw each epoch's rows from all of them

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1, but got {self.ratio}.")

    def plan(self, ids: Ids, columns: Columns, context: Context) -> Plan:
        if not self.replacement:
            slices = int(1 / self.ratio + 1e-9)  # 1 / 0.1 is below 10 in floats of some ratios
            cycle, place = divmod(context.epoch, slices)
            return Slice(context.seed, cycle, place * self.ratio, (place + 1) * self.ratio)
        kept = int(self.ratio * len(ids) + 1e-9)
        drawn = keys(context.seed, "subset", context.epoch, ids)
        last = np.partition(drawn, kept - 1)[kept - 1] if kept else 0
        return Smallest(context.seed, context.epoch, int(last), kept)


@dataclass(frozen=True)
class Smallest(Plan):
    """Keep exactly the `kept` rows with the smallest keys, of which `last` is the largest."""

    seed: int
    epoch: int
    last: int
    kept: int

    def decide(self, ids: Ids, columns: Columns) -> Decision:
        drawn = keys(self.seed, "subset", self.epoch, ids)
        return decision((drawn <= np.uint64(self.last)) & (self.kept > 0))


@dataclass(frozen=True)
class Slice(Plan):
    """Keep the rows whose number of the cycle, uniform in [0, 1), lies in [low, high)."""

    seed: int
    cycle: int
    low: float
    high: float

    def decide(self, ids: Ids, columns: Columns) -> Decision:
        u = uniform(self.seed, "slice", self.cycle, ids)
        return decision((self.low <= u) & (u < self.high))
