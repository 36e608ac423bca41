"""DSIR: rows drawn in proportion to how much likelier they are in the target (Xie et al., 2023)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.selection.calibration import calibrated
from shoal.policies.selection.interface import Budget, Candidates, Selected, halves
from shoal.policies.selection.picking import best_rows, gumbel, lowest, quotas

HELD_RATIO = "held_out_log_ratio"  # `(rows, targets)`, for rows of the target that no n-grams were counted in
HELD_OF = "held_out_of"  # number of the target that each of these rows belongs to


@dataclass(frozen=True)
class Dsir:
    """Take the rows with the largest `log_ratio + temperature * Gumbel`, exactly as many as the budget.

    At temperature 1 this draws without replacement by importance weights; at 0 it takes the best. A row's
    log ratio sums over its tokens and soon dwarfs a noise of deviation 1.28, so long rows need a higher
    temperature to be drawn at all. Of several targets (columns of `log_ratio`) each has its part of the budget,
    in proportion to the target's `mass` or else equal, and a row is taken for one of them. Rows shorter than
    `least_length` are left out, if there is a column `length`.

    A log ratio takes n-grams for independent, so it is far too sure. With `calibrated` the weight of a row is
    how often its log ratio comes in held-out rows of the target, over how often in the pool (isotonic
    regression: Zadrozny & Elkan, 2002): rows that are as typical of the target as others are drawn as often.
    """

    budget: ClassVar[Budget] = "needed"
    temperature: float = 1.0  # larger draws are less sure of their scores
    least_length: int = 0
    calibrated: bool = False  # draw by how often a log ratio comes in held-out rows of the target

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, but got {self.temperature}.")
        if not self.least_length >= 0:
            raise ValueError(f"least_length must be at least 0, but got {self.least_length}.")
        if self.calibrated and not self.temperature:
            raise ValueError("temperature must be above 0 with calibrated, which gives many rows one weight.")

    @property
    def aims(self) -> frozenset[str]:
        return frozenset({HELD_RATIO} if self.calibrated else ())

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"log_ratio", "length"} if self.least_length else {"log_ratio"})

    def select(self, pool: Candidates) -> Selected:
        ratios = pool.columns["log_ratio"].reshape(len(pool.ids), -1)
        long = self._long(pool)
        if int(long.sum()) < pool.goal:
            raise ValueError(
                f"the budget must be at most the {long.sum()} rows of least_length, but is {pool.goal}."
            )
        mass = np.asarray(pool.targets.get("mass", np.ones(ratios.shape[1])), np.float64)
        parts = quotas(mass, pool.goal, np.full(len(mass), pool.goal))
        chosen, margin = np.zeros(len(pool.ids), bool), None
        cuts = {}
        for target, count in enumerate(parts.tolist()):
            drawn = self._drawn(pool, target, self._weights(pool, target, ratios[:, target]))
            # a row that an earlier target took keeps the margin that it was taken by
            drawn[~long | chosen] = -np.inf
            taken = best_rows(drawn, count)
            cut = lowest(drawn, taken)
            drawn -= cut
            margin = drawn if margin is None else np.maximum(margin, drawn, out=margin)
            chosen |= taken
            cuts[f"cut_{target}" if len(parts) > 1 else "cut"] = cut
        assert margin is not None
        margin[~long] = np.nan
        found = halves(chosen, margin, ("less like the target", "like the target"), **cuts)
        found.reason[~long] = 2
        return found._replace(reasons=(*found.reasons, "too short"))

    def _long(self, pool: Candidates) -> NDArray[np.bool_]:
        if not self.least_length:
            return np.ones(len(pool.ids), bool)
        return np.asarray(pool.columns["length"] >= self.least_length)

    def _weights(self, pool: Candidates, target: int, ratio: Vector) -> Vector:
        if not self.calibrated:
            return ratio
        theirs = pool.targets[HELD_RATIO].reshape(len(pool.targets[HELD_RATIO]), -1)
        of = pool.targets.get(HELD_OF, np.zeros(len(theirs), np.int64))
        return calibrated(ratio, theirs[of == target, target])

    def _drawn(self, pool: Candidates, target: int, ratio: Vector) -> Vector:
        """Return a new array of what rows are taken by, `(rows,)`."""
        if not self.temperature:
            return np.array(ratio, np.float64)
        drawn = gumbel(pool.seed, f"dsir {target}", pool.ids)
        drawn *= self.temperature
        drawn += ratio
        return drawn
