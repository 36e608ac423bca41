"""Optimal transport between two sets of points, smoothed by entropy (Cuturi, 2013), in logarithms."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector

HALVING = 0.5  # the smoothing shrinks by this factor until it is as small as asked
ROUNDS_EACH, MOST_ROUNDS, CLOSE = (
    20,
    500,
    1e-4,
)  # iterations at each smoothing and at the last; marginals' error


class Transport(NamedTuple):
    cost: float  # sum of the moved mass times its cost
    first: Vector  # (n,) potential of each point of the first set
    second: Vector  # (m,)


def transport(costs: NDArray[np.float64], smoothing: float = 0.01) -> Transport:
    """Return the transport between two sets whose points weigh alike, by their costs `(n, m)`.

    `smoothing` is the weight of the entropy in the unit of the costs; the cost falls to the exact one as it
    goes to 0.
    """
    n, m = costs.shape
    first, second = np.zeros(n), np.zeros(m)
    now = max(float(costs.max()), smoothing)
    while now > smoothing:
        first, second, _ = _balance(costs, first, second, now, ROUNDS_EACH)
        now *= HALVING
    first, second, logs = _balance(costs, first, second, smoothing, MOST_ROUNDS)
    return Transport(float((rounded(np.exp(logs)) * costs).sum()), first, second)


def rounded(plan: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nearby plan in which every point gives and takes exactly its mass (Altschuler et al., 2017).

    Without it a plan that has not converged could cost less than the exact one.
    """
    n, m = plan.shape
    plan = plan * np.minimum(1.0, 1 / n / np.maximum(plan.sum(axis=1), 1e-300))[:, None]
    plan = plan * np.minimum(1.0, 1 / m / np.maximum(plan.sum(axis=0), 1e-300))
    missing = np.maximum(1 / n - plan.sum(axis=1), 0.0), np.maximum(1 / m - plan.sum(axis=0), 0.0)
    return np.asarray(plan + np.outer(*missing) / max(float(missing[0].sum()), 1e-300))


def _balance(
    costs: NDArray[np.float64], first: Vector, second: Vector, smoothing: float, rounds: int
) -> tuple[Vector, Vector, NDArray[np.float64]]:
    """Return better potentials, and the logarithm of the mass that is moved from each point to each."""
    n, m = costs.shape
    for _ in range(rounds):
        first = -smoothing * _log_sums((second - costs) / smoothing - np.log(m), 1)
        logs = (first[:, None] + second - costs) / smoothing - np.log(n) - np.log(m)
        # the rows sum to 1 / n by now, the columns only in the end
        columns = _log_sums(logs, 0) + np.log(m)
        if np.abs(np.expm1(columns)).max() < CLOSE:
            break
        second = second - smoothing * columns
    return first, second, logs


def _log_sums(values: NDArray[np.float64], axis: int) -> Vector:
    most = values.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(values - most).sum(axis=axis)) + most.squeeze(axis))
