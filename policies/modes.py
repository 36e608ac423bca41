"""Two modes of a column of numbers, such as the losses of right and of wrong labels (Arazo et al., 2019)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.sampling.clusters import cut_points

SCALED_BY = 0.99  # quantile; min and max would let one outlier squeeze all other values together
LEAST_VARIANCE = 5e-4  # in the unit of the scaled values
MOST_ROUNDS, CONVERGED = 200, 1e-9
FIT_ON = 65536  # values to fit on; of more, evenly spaced quantiles
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


class TwoModes(NamedTuple):
    """Where two modes of a column lie: small, and equal wherever the column's values are."""

    least: float  # value that is scaled to 0
    most: float  # value that is scaled to 1, as all larger ones are
    modes: Modes

    def chances(self, values: Vector) -> Vector:
        """Return the chance that each value is of the upper mode; NaN where the value is NaN."""
        return self.modes.high(between(values, self.least, self.most))


def two_modes(values: Vector) -> TwoModes | None:
    """Return the split of finite values in two modes, or None where they have but one."""
    if not len(values):
        return None
    least, most = float(values.min()), float(np.quantile(values, SCALED_BY))
    modes = fit_modes(between(values, least, most))
    return TwoModes(least, most, modes) if modes is not None and modes.two else None


def between(values: Vector, least: float, most: float) -> Vector:
    """Return values moved and stretched so that they lie in [0, 1]; those beyond `most` are 1."""
    return np.asarray(np.clip((values - least) / max(most - least, 1e-12), 0.0, 1.0))


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
