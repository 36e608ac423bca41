"""Leave out rows whose labels are probably wrong, by the mode of their losses (Albert et al., 2024)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.sampling.clusters import cut_points
from shoal.policies.selection.interface import Budget, Candidates, Selected, halves

SCALED_BY = 0.99  # quantile; min and max would let one outlier squeeze all other losses together
LEAST_VARIANCE = 5e-4  # in the unit of the scaled losses
MOST_ROUNDS, CONVERGED = 200, 1e-9
FIT_ON = 65536  # losses to fit on; of more, evenly spaced quantiles
APART, LEAST_SHARE = 2.0, 0.01  # modes count as two if so many deviations apart and none is smaller


class Modes(NamedTuple):
    """Two normal distributions, the one of the lower mean first, each `(2,)`."""

    means: Vector
    variances: Vector
    shares: Vector

    @property
    def two(self) -> bool:
        """Whether there are two: a mixture that is fitted to one mode finds two as well."""
        width = float(np.sqrt(self.shares @ self.variances))
        far = float(self.means[1] - self.means[0]) >= APART * width
        return far and float(self.shares.min()) > LEAST_SHARE

    def high(self, values: Vector) -> Vector:
        """Return the chance that each value is of the upper mode; 0 below the lower mean."""
        logs = log_densities(values, self)
        found = 1 / (1 + np.exp(np.clip(logs[0] - logs[1], -700, 700)))
        # a wide upper mode is likelier also far below a narrow lower one
        return np.asarray(np.where(values <= self.means[0], 0.0, found))


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
    scaled = scale_losses(losses)
    modes = fit_modes(scaled)
    if modes is None or not modes.two:
        return np.zeros(len(losses)), False
    return modes.high(scaled), True


def scale_losses(losses: Vector) -> Vector:
    """Return losses moved and stretched so that they lie in [0, 1]; those beyond a quantile are 1."""
    if not len(losses):
        return losses
    least, most = float(losses.min()), float(np.quantile(losses, SCALED_BY))
    return np.asarray(np.clip((losses - least) / max(most - least, 1e-12), 0.0, 1.0))


def fit_modes(values: Vector) -> Modes | None:
    """Return two normal modes by expectation and maximisation; None where fewer than two values differ."""
    ordered = np.sort(values)
    if len(ordered) > FIT_ON:
        ordered = ordered[np.linspace(0, len(ordered) - 1, FIT_ON).astype(np.int64)]
    borders = cut_points(ordered, 2)
    if not len(borders):
        return None
    upper = (ordered >= borders[0]).astype(np.float64)
    modes, before = _modes_of(ordered, upper), -np.inf
    for _ in range(MOST_ROUNDS):
        logs = log_densities(ordered, modes)
        total = np.logaddexp(logs[0], logs[1])
        likelihood = float(total.mean())
        if likelihood - before < CONVERGED:
            break
        before, modes = likelihood, _modes_of(ordered, np.exp(logs[1] - total))
    order = np.argsort(modes.means, kind="stable")
    return Modes(*(part[order] for part in modes))


def _modes_of(values: Vector, upper: Vector) -> Modes:
    """Return the modes of values that belong to the upper one by these weights."""
    weights: NDArray[np.float64] = np.stack([1 - upper, upper])
    sums = np.maximum(weights.sum(axis=1), 1e-12)
    means = weights @ values / sums
    spread = (weights * (values - means[:, None]) ** 2).sum(axis=1) / sums
    return Modes(means, spread + LEAST_VARIANCE, sums / sums.sum())


def log_densities(values: Vector, modes: Modes) -> NDArray[np.float64]:
    """Return the logarithm of each mode's share times its density, `(2, values)`."""
    away = (values - modes.means[:, None]) ** 2 / modes.variances[:, None]
    return np.asarray(
        np.log(modes.shares)[:, None] - 0.5 * (away + np.log(2 * np.pi * modes.variances)[:, None])
    )
