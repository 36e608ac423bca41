"""Rows that training on lowers the target's losses, by their influence (Koh and Liang, 2017)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.selection.interface import Budget, Candidates, Selected, halves
from shoal.policies.selection.picking import best_rows, lowest


@dataclass(frozen=True)
class Influence:
    """Take the rows of the largest influence, or without a budget all whose influence is above 0.

    Of several targets each has a column. They are put on one scale first, by the root of their mean square: a
    target whose rows are longer has larger influences. `over` says how they become one number.
    """

    aims: ClassVar[frozenset[str]] = frozenset()
    budget: ClassVar[Budget] = "optional"
    score: str = "influence"  # the column that rows are chosen by
    over: Literal["mean", "max", "min"] = "mean"  # how influences on several targets become one number

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.score})

    def select(self, pool: Candidates) -> Selected:
        key = self.joined(pool.columns[self.score].astype(np.float64).reshape(len(pool.ids), -1))
        reasons = ("less influence", "more influence")
        if pool.budget is None:
            return halves(key > 0, key, reasons, cut=0.0)
        chosen = best_rows(key, pool.budget)
        cut = lowest(key, chosen)
        key -= cut
        return halves(chosen, key, reasons, cut=cut)

    def joined(self, values: np.ndarray) -> Vector:
        """Return one number for each row of `(rows, targets)`."""
        if values.shape[1] > 1:
            size = np.sqrt((values**2).mean(axis=0))
            values = values / np.where(size > 0, size, 1.0)
        return np.asarray(getattr(values, self.over)(axis=1))
