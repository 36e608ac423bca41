"""Which members are not worth training on: the rungs of asynchronous successive halving."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cull:
    """Of all members on a rung, the best 1 / `reduction`, rounded up, go on (ASHA: Li et al., 2020).

    The boundary is an interpolated quantile, as in Tune's scheduler: of 4, 5, 8 and 9 members with a reduction
    of 4 the best 1, 2, 2 and 3 go on, and also those whose score equals the last of them. Rungs are at `grace`,
    `grace * reduction`, `grace * reduction^2` ... steps. A member is on the highest rung that it has reached,
    and all members of a rung are compared at the same age, however early or late they reach it.
    """

    grace: int
    reduction: float = 4.0

    def __post_init__(self) -> None:
        if self.grace < 1:
            raise ValueError(f"grace must be at least 1 step, but got {self.grace}.")
        if not 1 < self.reduction < math.inf:
            raise ValueError(f"reduction must be above 1, but got {self.reduction}.")

    def rung(self, before: int, step: int) -> int | None:
        """Return the highest rung that was reached after step `before` and by `step`, counted from 0."""
        if step < self.grace:
            return None
        rung = math.floor(math.log(step / self.grace, self.reduction) + 1e-9)
        return rung if self.grace * self.reduction**rung > before else None

    def hopeless(self, own: float, scores: Sequence[float]) -> bool:
        """Say whether a member with this score is not among the best of all scores of its rung, its own too."""
        finite = sorted(score for score in scores if math.isfinite(score))
        if not finite:
            return False
        # 1 - 1 / 3 is rounded: the place of the boundary among ten is 6, not just above it
        place = round((len(finite) - 1) * (1 - 1 / self.reduction), 9)
        return own < float(np.interp(place, range(len(finite)), finite))
