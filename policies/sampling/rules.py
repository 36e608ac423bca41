"""The sampling policies by name, and one at work."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.policies.sampling.dynamic import Extremes, LinUpper, Quadratic
from shoal.policies.sampling.hardness import EasyToHard
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.policies.sampling.interface import Context, Decision, Plan, Rule
from shoal.policies.sampling.losses import LastLosses
from shoal.policies.sampling.random_subset import RandomSubset
from shoal.policies.sampling.seta import SeTa

SAMPLERS: dict[str, type] = {
    "random_subset": RandomSubset,
    "seta": SeTa,
    "infobatch": InfoBatch,
    "lin_upper": LinUpper,
    "quadratic": Quadratic,
    "extremes": Extremes,
    "easy_to_hard": EasyToHard,
}


class Sampling:
    """A rule and what it has seen of a pool of rows, whose ids are `0 ... rows - 1`."""

    def __init__(self, rule: Rule, rows: int, score: NDArray[np.floating] | None = None):
        self.rule, self.last = rule, LastLosses(rows)
        self.score = np.full(rows, np.nan) if score is None else score
        self.age = np.zeros(rows, np.int16)

    def observe(self, table: pa.Table) -> None:
        """Take in losses: `sample_id`, `step`, `model_version` (int64) and `loss`.

        The outcome does not depend on the order of the calls, on how losses are shared out among them, or on
        whether some come twice.
        """
        columns = [table[name].to_numpy() for name in ("sample_id", "loss", "step", "model_version")]
        self.last.observe(*columns)

    def plan(self, context: Context) -> Plan:
        """Plan an epoch; called at its start."""
        return self.rule.plan(np.arange(len(self.last.loss)), self.columns(), context)

    def columns(self) -> dict[str, Any]:
        """Return what `Plan.decide` needs, of all rows; a copy, since an epoch is decided by one snapshot."""
        return {"loss": self.last.loss.copy(), "age": self.age.copy(), "score": self.score}

    def decided(self, decision: Decision) -> None:
        """Take note of what an epoch's plan decided about all rows."""
        self.age = np.where(decision.copies > 0, 0, self.age + 1).astype(np.int16)

    def state(self) -> dict[str, Any]:
        return self.last.state() | {"age": self.age.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        self.last.restore(state)
        self.age = np.array(state["age"])
