"""A loss that falls by a power law of the rows trained, fitted robustly."""

import math
import warnings
from typing import NamedTuple

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.minimise import minimise, multistart

HUBER_LOG = 1e-3  # difference of logarithms of losses; larger ones count as outliers
# slope of a squared logarithm: a plateau is fitted ever better, and the fit differs no more
FLAT_LOG = 1e-11
STIFFNESS = 10.0  # cost of leaving the bounds below by 1
# bounds of log eps and log beta; they are relative to the median loss at the middle of the rows, so they
# hold for any unit
LEAST_FLOOR, MOST_SLOPE = math.log(0.05), math.log(20.0)
LEAST_ALPHA, MOST_ALPHA = 0.001, 0.8


class LossCurve(NamedTuple):
    """loss(n) = eps + beta n ** -alpha; NaN before the first fit."""

    eps: float
    beta: float
    alpha: float


def fit_curve(at: Vector, losses: Vector, before: LossCurve) -> LossCurve:
    """Fit log loss by the Huber loss from several starts, the curve of `before` among them.

    `at` (points,) are rows, above 0. Where no fit is finite, the curve of before stays.
    """
    if not (np.isfinite(losses).all() and (losses > 0).all()):
        return before
    middle, level = float(np.exp(np.log(at).mean())), float(np.median(losses))
    logs, heights = np.log(at / middle), np.log(losses / level)

    def function(point: Vector) -> tuple[float, Vector]:
        return _misfit(point, logs, heights)

    starts = [
        np.array([math.log(floor), math.log(1 - floor), alpha])
        for floor in (0.3, 0.6, 0.9)
        for alpha in (0.1, 0.4)
    ]
    if all(map(math.isfinite, before)) and before.eps > 0 and before.beta > 0:
        warm = math.log(before.eps / level), math.log(before.beta / level) - before.alpha * math.log(middle)
        starts = [np.array([*warm, before.alpha]), starts[2]]
    near = multistart(function, starts, enough=FLAT_LOG)
    best = minimise(function, near.point, iterations=10_000, enough=FLAT_LOG)
    if not best.converged:
        said = "the fit of a group's curve has not converged: its forecast may be off."
        warnings.warn(said, RuntimeWarning, stacklevel=2)
    floor, slope, alpha = best.point.tolist()
    if not math.isfinite(best.value):
        return before
    return LossCurve(level * math.exp(floor), level * math.exp(slope + alpha * math.log(middle)), alpha)


def _misfit(point: Vector, logs: Vector, heights: Vector) -> tuple[float, Vector]:
    """Return the mean Huber loss of the logarithm, with the cost of leaving the bounds, and its gradient.

    `point` is log eps, log beta at the middle of the rows, alpha.
    """
    floor, slope, alpha = point
    if not np.abs(point).max() < 100:  # far outside the bounds exp would overflow
        return math.inf, point
    falling = slope - alpha * logs
    fitted = np.logaddexp(floor, falling)
    share = np.exp(falling - fitted)  # share of beta n ** -alpha in the loss
    off = fitted - heights
    inside = np.abs(off) <= HUBER_LOG
    value = np.where(inside, 0.5 * off**2, HUBER_LOG * (np.abs(off) - 0.5 * HUBER_LOG)).mean()
    pull = np.clip(off, -HUBER_LOG, HUBER_LOG) / len(off)
    gradient = np.array([pull @ (1 - share), pull @ share, -pull @ (share * logs)])
    beyond = np.array(
        [
            min(floor - LEAST_FLOOR, 0.0),
            max(slope - MOST_SLOPE, 0.0),
            max(alpha - MOST_ALPHA, 0.0) + min(alpha - LEAST_ALPHA, 0.0),
        ]
    )
    return float(value + STIFFNESS * beyond @ beyond), gradient + 2 * STIFFNESS * beyond
