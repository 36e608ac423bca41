"""Train on the rows whose labels are probably right, by the mode of their losses (Albert et al., 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shoal.policies.modes import TwoModes, two_modes
from shoal.policies.sampling.interface import Columns, Context, Decision, Ids, Plan, Spec, decision


@dataclass(frozen=True)
class SmallLossRows:
    """Leave out the rows whose last loss is of the upper of two modes with a chance above `certain`.

    The first `after` epochs train on all rows. Where the losses have but one mode all rows are kept. A row that
    `again` epochs in a row have left out is read once more with weight 0: it trains nothing, but its loss
    becomes new. In the epochs of even number `alternate` splits by a score instead, of which the rows of the
    high or of the low mode are left out. The two detectors err on other rows: simple rows of another kind have
    small losses, and odd ones that are right have large losses. Each group has modes of its own.
    """

    certain: float = 0.95  # chance of the upper mode above which a row is left out
    after: int = 1  # epochs on all rows before the first split
    again: int = 2  # epochs that leave a row out before its loss is taken anew
    # which mode of the score is noise in the epochs of even number; never: all epochs go by the loss
    alternate: Literal["never", "high", "low"] = "never"

    def __post_init__(self) -> None:
        if not 0 < self.certain < 1:
            raise ValueError(f"certain must be between 0 and 1, but got {self.certain}.")
        if not self.after >= 1:
            raise ValueError(f"after must be at least 1 epoch, but got {self.after}.")
        if not self.again >= 1:
            raise ValueError(f"again must be at least 1 epoch, but got {self.again}.")
        if self.alternate not in ("never", "high", "low"):
            raise ValueError(f"alternate must be never, high or low, but got {self.alternate}.")

    @property
    def spec(self) -> Spec:
        needs = {"loss", "age"} | ({"score"} if self.alternate != "never" else set())
        return Spec("epoch", frozenset(needs), frozenset({"keep", "weight"}), "summary", "weighted_sum")

    def plan(self, ids: Ids, columns: Columns, context: Context) -> Plan:
        by_score = self.alternate != "never" and context.epoch % 2 == 0
        name, sign = ("score", -1.0 if self.alternate == "low" else 1.0) if by_score else ("loss", 1.0)
        if context.epoch < self.after:
            return LowerMode(name, sign, None, self.certain, self.again)
        values = sign * columns[name].astype(np.float64)
        return LowerMode(name, sign, two_modes(values[np.isfinite(values)]), self.certain, self.again)


@dataclass(frozen=True)
class LowerMode(Plan):
    """Keep the rows of the lower mode of `sign` times a column; without a split keep all."""

    column: str
    sign: float
    split: TwoModes | None
    certain: float
    again: int

    def decide(self, ids: Ids, columns: Columns) -> Decision:
        left_out = self.noisy(columns)
        looked_at = left_out & (columns["age"] >= self.again)
        return decision(~left_out | looked_at, np.where(looked_at, 0.0, 1.0))

    def noisy(self, columns: Columns) -> NDArray[np.bool_]:
        """Say of each row whether it is of the upper mode; no row is of which nothing is known."""
        values = self.sign * columns[self.column].astype(np.float64)
        if self.split is None:
            return np.zeros(len(values), bool)
        return np.asarray(self.split.chances(values) > self.certain)  # False for NaN

    def weigh(self, signals: Mapping[str, Any]) -> Any:
        # weights are 0 or 1, so this is the mean over the rows that count
        return signals["weight"] / signals["weight"].sum().clip(min=1)
