"""InfoBatch: drop some of the easy rows, and let the rest of them count for those (Qin et al., 2023)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shoal.policies.sampling.chance import uniform
from shoal.policies.sampling.interface import Columns, Context, Decision, Ids, Plan, Spec, decision


@dataclass(frozen=True)
class InfoBatch:
    """Drop a row whose last loss is below the mean with chance `prune`; else it weighs `1 / (1 - prune)`.

    The expected gradient is that of all rows, however old the losses are: the threshold is fixed before the
    coins are thrown, and each row has a coin of its own. Rows without a loss are kept. After the share `until`
    of the training all rows are kept with weight 1.
    """

    spec: ClassVar[Spec] = Spec(
        "epoch", frozenset({"loss"}), frozenset({"keep", "weight"}), "summary", "mean_count"
    )
    prune: float = 0.5
    until: float = 0.875

    def __post_init__(self) -> None:
        if not 0 <= self.prune <= 0.9:
            raise ValueError(f"prune must be in [0, 0.9], but got {self.prune}.")
        if not 0 <= self.until <= 1:
            raise ValueError(f"until must be in [0, 1], but got {self.until}.")

    def plan(self, ids: Ids, columns: Columns, context: Context) -> Plan:
        known = columns["loss"][np.isfinite(columns["loss"])].astype(np.float64)
        if not context.until(self.until) or not len(known):
            return BelowMean(context.seed, context.epoch, 0.0, -np.inf)
        mean = known.mean()
        # the mean of equal losses may be rounded up, which would make all of them easy
        return BelowMean(context.seed, context.epoch, self.prune, float(mean - 1e-9 * abs(mean)))


@dataclass(frozen=True)
class BelowMean(Plan):
    """Drop a row with chance `prune` if its loss is below the threshold, and let the others count for it."""

    seed: int
    epoch: int
    prune: float
    threshold: float

    def decide(self, ids: Ids, columns: Columns) -> Decision:
        low = columns["loss"] < self.threshold  # False for NaN
        dropped = low & (uniform(self.seed, "prune", self.epoch, ids) < self.prune)
        return decision(~dropped, np.where(low, 1 / (1 - self.prune), 1.0))
