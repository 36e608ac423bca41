"""Choose rows by one column: at random, the best, or all above a cut."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.sampling.chance import uniform
from shoal.policies.selection.interface import Budget, Candidates, Selected, halves
from shoal.policies.selection.picking import best_rows, lowest


@dataclass(frozen=True)
class RandomRows:
    """Choose rows at random, exactly as many as the budget: the control of all others."""

    needs: ClassVar[frozenset[str]] = frozenset()
    aims: ClassVar[frozenset[str]] = frozenset()
    budget: ClassVar[Budget] = "needed"

    def select(self, pool: Candidates) -> Selected:
        key = uniform(pool.seed, "random", 0, pool.ids)
        np.negative(key, out=key)
        chosen = best_rows(key, pool.goal)
        key -= lowest(key, chosen)
        return halves(chosen, key, ("not drawn", "drawn"))


@dataclass(frozen=True)
class Top:
    """Choose the rows with the largest values of a column, or the least; of equal ones those of least id."""

    aims: ClassVar[frozenset[str]] = frozenset()
    budget: ClassVar[Budget] = "needed"
    score: str = "score"  # the column that rows are ranked by
    largest: bool = True  # take the largest scores, else the smallest

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.score})

    def select(self, pool: Candidates) -> Selected:
        key = signed(pool, self.score, self.largest)
        chosen = best_rows(key, pool.goal)
        cut = lowest(key, chosen)
        key -= cut
        found = halves(chosen, key, ("beyond the budget", "among the best"))
        return found._replace(facts={"cut": cut if self.largest else -cut})


@dataclass(frozen=True)
class ScoreThreshold:
    """Keep all rows at or above a cut: a number, or the one that keeps a share of the rows.

    With `by_group` each group has a cut of its own, as for scores that mean nothing across groups
    (AttentionInfluence: Hua et al., 2025); else there is one for the whole pool (data filtering networks: Fang
    et al., 2023). By a share the number of rows is exact, and of equal scores those of least id are kept.
    """

    aims: ClassVar[frozenset[str]] = frozenset()
    budget: ClassVar[Budget] = "none"
    score: str = "score"  # the column that is cut
    share: float | None = None  # the share of the rows that is kept
    cut: float | None = None  # the score from which rows are kept
    by_group: bool = False
    largest: bool = True  # keep what lies above, else what lies below

    def __post_init__(self) -> None:
        if (self.share is None) == (self.cut is None):
            raise ValueError("share or cut must be given, and not both.")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, but got {self.share}.")
        if self.cut is not None and self.by_group:
            raise ValueError("by_group must be false with cut, which is one number for all groups.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.score})

    def select(self, pool: Candidates) -> Selected:
        key = signed(pool, self.score, self.largest)
        sign = 1 if self.largest else -1
        if self.cut is not None:
            chosen, facts = key >= sign * self.cut, {"cut": self.cut}
            key -= sign * self.cut
        else:
            chosen, facts = np.zeros(len(key), bool), {}
            for number in np.unique(pool.group) if self.by_group else [None]:
                inside = np.flatnonzero(pool.group == number) if self.by_group else slice(None)
                own = key[inside]
                kept = best_rows(own, round(self.kept * len(own)))
                cut = lowest(own, kept)
                chosen[inside] = kept
                key[inside] -= cut
                facts[f"cut_{number}" if self.by_group else "cut"] = sign * cut
        return halves(chosen, key, ("beyond the cut", "within the cut"), **facts)

    @property
    def kept(self) -> float:
        assert self.share is not None
        return self.share


def signed(pool: Candidates, score: str, largest: bool) -> Vector:
    """Return a copy of a column such that larger is better."""
    values = pool.columns[score].astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"{score} must hold one number a row, but holds {values.shape[1]}.")
    return values if largest else np.negative(values, out=values)
