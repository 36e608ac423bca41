"""Train on the rows with the best scores, a share of them or all above a cut that members may search."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.sampling.chance import uniform
from shoal.policies.sampling.interface import Columns, Context, Decision, Ids, Plan, Spec, decision


@dataclass(frozen=True)
class KeptShare:
    """Keep the rows of each group with the largest `score + temperature * Gumbel`, a share of them exactly.

    A row's draw is the same for all members and epochs, so a larger share holds the rows of a smaller one, and
    members that differ in their share alone read nested sets. At temperature 0 the best are kept; with `least`
    those of the lowest scores, as where the score is a loss. Rows without a score are left out. Of two scores
    `blend` is the weight of the second and `1 - blend` that of the first.
    """

    spec: ClassVar[Spec] = Spec("once", frozenset({"score"}), frozenset({"keep"}), "summary", "mean_count")
    share: float = 0.5  # share of each group's rows that is kept
    temperature: float = 0.0  # chance in the order; 0 keeps the best
    least: bool = False
    blend: float = 0.0  # weight of the second of two scores

    def __post_init__(self) -> None:
        check_blend(self.blend)
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, but got {self.share}.")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, but got {self.temperature}.")

    def plan(self, ids: Ids, columns: Columns, context: Context) -> Plan:
        cut = AboveCut(context.seed, self.temperature, self.least, self.blend, np.inf, -1)
        key = cut.key(ids, columns)
        known = np.flatnonzero(np.isfinite(key))
        kept = round(self.share * len(ids))
        if not len(known) or not kept:
            return cut
        # equal keys are cut by id, so that their number is exact
        order = known[np.lexsort((ids[known], -key[known]))][:kept]
        return replace(cut, cut=float(key[order[-1]]), last=int(ids[order[-1]]))


@dataclass(frozen=True)
class ScoreCut:
    """Keep the rows whose score is at least `cut`, or at most `cut` with `least`, in all groups alike.

    Rows without a score are left out. Of two scores `blend` is the weight of the second.
    """

    spec: ClassVar[Spec] = Spec("once", frozenset({"score"}), frozenset({"keep"}), "none", "mean_count")
    cut: float = 0.0  # the score from which rows are kept
    least: bool = False
    blend: float = 0.0  # weight of the second of two scores

    def __post_init__(self) -> None:
        check_blend(self.blend)
        if not np.isfinite(self.cut):
            raise ValueError(f"cut must be a finite number, but got {self.cut}.")

    def plan(self, ids: Ids, columns: Columns, context: Context) -> Plan:
        cut = -self.cut if self.least else self.cut
        return AboveCut(context.seed, 0.0, self.least, self.blend, cut, np.iinfo(np.int64).max)


def check_blend(blend: float) -> None:
    if not 0 <= blend <= 1:
        raise ValueError(f"blend must be between 0 and 1, but got {blend}.")


@dataclass(frozen=True)
class AboveCut(Plan):
    """Keep rows above the cut, and of those at it the ones with an id of at most `last`."""

    seed: int
    temperature: float
    least: bool
    blend: float
    cut: float
    last: int

    def key(self, ids: Ids, columns: Columns) -> Vector:
        score = columns["score"].astype(np.float64)
        if score.ndim == 2:
            score = (1 - self.blend) * score[:, 0] + self.blend * score[:, 1]
        found = -score if self.least else score
        if self.temperature:
            noise = -np.log(-np.log(uniform(self.seed, "kept share", 0, ids)))
            found = found + self.temperature * noise
        return np.asarray(np.where(np.isfinite(found), found, -np.inf))

    def decide(self, ids: Ids, columns: Columns) -> Decision:
        key = self.key(ids, columns)
        return decision((key > self.cut) | ((key == self.cut) & (ids <= self.last)))
