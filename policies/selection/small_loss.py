"""Leave out rows whose labels are probably wrong, by the mode of their losses (Albert et al., 2024)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.modes import two_modes
from shoal.policies.selection.interface import Budget, Candidates, Selected, halves


@dataclass(frozen=True)
class SmallLoss:
    """Keep rows unless their `loss` is of the upper of two modes with a chance above `certain`.

    Where the losses have but one mode, all rows are kept. With `by_group` each group has modes of its own.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"loss"})
    aims: ClassVar[frozenset[str]] = frozenset()
    budget: ClassVar[Budget] = "none"
    certain: float = 0.95
    by_group: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.certain < 1:
            raise ValueError(f"certain must be between 0 and 1, but got {self.certain}.")

    def select(self, pool: Candidates) -> Selected:
        losses = pool.columns["loss"].astype(np.float64)
        chance, modes = np.zeros(len(losses)), 0.0
        for number in np.unique(pool.group) if self.by_group else [None]:
            inside = pool.group == number if self.by_group else np.ones(len(losses), bool)
            chance[inside], two = noise_chances(losses[inside])
            modes += two
        kept = chance <= self.certain
        return halves(kept, self.certain - chance, ("loss of the upper mode", "small loss"), two_modes=modes)


def noise_chances(losses: Vector) -> tuple[Vector, bool]:
    """Return the chance that each loss is of the upper of two modes, 0 for all if there is one; and whether."""
    split = two_modes(losses)
    if split is None:
        return np.zeros(len(losses)), False
    return split.chances(losses), True
