"""A loss that falls by a power law of the rows trained, fitted robustly."""

import math
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector

HUBER_LOG = 1e-3  # difference of logarithms of losses; larger ones count as outliers
# slope of a squared logarithm: a plateau is fitted ever better, and the fit differs no more
FLAT_LOG = 1e-11
ENOUGH = 1e-6  # a step that lessens the misfit by a smaller share of it is the last one
MOST_TRIES = 200
STIFFNESS = 10.0  # cost of leaving the bounds below by 1
# bounds of log eps and log beta; they are relative to the median loss at the middle of the rows, so they
# hold for any unit
LEAST_FLOOR, MOST_SLOPE = math.log(0.05), math.log(20.0)
LEAST_ALPHA, MOST_ALPHA = 0.001, 0.8
ALPHAS = np.array([0.01, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8])  # a fit begins at the best of these
REWEIGHTINGS = 6  # fits of least squares, each with the outliers of the fit before weighed down


class LossCurve(NamedTuple):
    """loss(n) = eps + beta n ** -alpha; NaN before the first fit."""

    eps: float
    beta: float
    alpha: float


class Misfit(NamedTuple):
    """How far a curve is from the losses, with derivatives by log eps, log beta at the middle, and alpha."""

    value: float
    gradient: Vector  # (3,)
    curvature: NDArray[np.float64]  # (3, 3), exact where no loss is just about to count as an outlier
    bound: NDArray[np.float64]  # (3, 3), positive: that of a parabola above the misfit


def fit_curve(at: Vector, losses: Vector, before: LossCurve) -> LossCurve:
    """Fit log loss by the Huber loss, from the curve of `before` or from a grid of alphas.

    `at` (points,) are rows, above 0. Where no fit is finite, the curve of before stays.
    """
    if not (np.isfinite(losses).all() and (losses > 0).all()):
        return before
    middle, level = float(np.exp(np.log(at).mean())), float(np.median(losses))
    logs, heights = np.log(at / middle), np.log(losses / level)
    starts = [_start(logs, heights)]
    if all(map(math.isfinite, before)) and before.eps > 0 and before.beta > 0:
        warm = math.log(before.eps / level), math.log(before.beta / level) - before.alpha * math.log(middle)
        starts.append(np.array([*warm, before.alpha]))
    nearest = min(starts, key=lambda point: _misfit(point, logs, heights).value)
    floor, slope, alpha = _descend(nearest, logs, heights).tolist()
    return LossCurve(level * math.exp(floor), level * math.exp(slope + alpha * math.log(middle)), alpha)


def _start(logs: Vector, heights: Vector) -> Vector:
    """Return the best point whose alpha is one of ALPHAS.

    With alpha given a curve is a straight line of n ** -alpha, so eps and beta follow from least squares of
    relative differences.
    """
    heard = np.exp(heights)
    basis = np.exp(-ALPHAS[:, None] * logs)  # (alphas, points)
    weights = np.ones_like(basis) / heard**2
    for _ in range(REWEIGHTINGS):
        ones, lines, squares = weights.sum(1), (weights * basis).sum(1), (weights * basis**2).sum(1)
        level, tilt = (weights * heard).sum(1), (weights * basis * heard).sum(1)
        room = np.maximum(ones * squares - lines**2, 1e-12 * ones * squares)
        eps = np.maximum((squares * level - lines * tilt) / room, math.exp(LEAST_FLOOR))
        beta = np.clip((ones * tilt - lines * level) / room, 1e-3, math.exp(MOST_SLOPE))
        off = np.abs(np.log(eps[:, None] + beta[:, None] * basis) - heights)
        weights = np.minimum(1.0, HUBER_LOG / np.maximum(off, HUBER_LOG)) / heard**2
    best = int(np.argmin(off.mean(axis=1)))
    return np.array([math.log(eps[best]), math.log(beta[best]), ALPHAS[best]])


def _descend(point: Vector, logs: Vector, heights: Vector) -> Vector:
    """Return where damped Newton steps end (Levenberg, 1944; Marquardt, 1963).

    Eps, beta and alpha make up for one another, so a method that only knows gradients needs some ten times
    as many evaluations. Where Newton's step does not lessen the misfit, the bound's does.
    """
    now, damping = _misfit(point, logs, heights), 1e-3
    for _ in range(MOST_TRIES):
        if np.abs(now.gradient).max() <= FLAT_LOG or damping > 1e8:
            return point
        damped = damping * np.diag(np.diag(now.bound) + 1e-12)
        for curvature in (now.curvature + damped, now.bound + damped):
            moved = point - np.linalg.solve(curvature, now.gradient)
            found = _misfit(moved, logs, heights)
            if found.value < now.value:
                break
        else:
            damping *= 10
            continue
        last = now.value - found.value <= ENOUGH * now.value
        point, now, damping = moved, found, max(damping / 10, 1e-9)
        if last:
            return point
    if now.value > FLAT_LOG:
        said = "the fit of a group's curve has not converged: its forecast may be off."
        warnings.warn(said, RuntimeWarning, stacklevel=2)
    return point


def _misfit(point: Vector, logs: Vector, heights: Vector) -> Misfit:
    """Return the mean Huber loss of the logarithm, with the cost of leaving the bounds.

    `point` is log eps, log beta at the middle of the rows, alpha.
    """
    floor, slope, alpha = point
    if not np.abs(point).max() < 100:  # far outside the bounds exp would overflow
        return Misfit(math.inf, point, np.eye(3), np.eye(3))
    falling = slope - alpha * logs
    fitted = np.logaddexp(floor, falling)
    share = np.exp(falling - fitted)  # share of beta n ** -alpha in the loss
    off = fitted - heights
    size, inside = np.abs(off), np.abs(off) <= HUBER_LOG
    value = np.where(inside, 0.5 * off**2, HUBER_LOG * (size - 0.5 * HUBER_LOG)).mean()
    pull = np.clip(off, -HUBER_LOG, HUBER_LOG) / len(off)
    slopes = np.stack([1 - share, share, -share * logs])  # (3, points), derivatives of `fitted`
    turns = np.stack([-np.ones_like(logs), np.ones_like(logs), -logs])
    beyond = np.array(
        [
            min(floor - LEAST_FLOOR, 0.0),
            max(slope - MOST_SLOPE, 0.0),
            max(alpha - MOST_ALPHA, 0.0) + min(alpha - LEAST_ALPHA, 0.0),
        ]
    )
    walls = np.diag(2 * STIFFNESS * (beyond != 0))
    weights = HUBER_LOG / np.maximum(size, HUBER_LOG) / len(off)
    return Misfit(
        float(value + STIFFNESS * beyond @ beyond),
        slopes @ pull + 2 * STIFFNESS * beyond,
        (slopes * inside) @ slopes.T / len(off) + (turns * (pull * share * (1 - share))) @ turns.T + walls,
        (slopes * weights) @ slopes.T + walls,
    )
