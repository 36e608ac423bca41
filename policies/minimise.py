"""Minimising a smooth function of a few dozen numbers, given its gradient, in plain numpy.

scipy has the same and more, but the policies need nothing else of it, and run where it is not installed;
tests hold this against it.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from shoal.policies.arrays import Vector

Function = Callable[[Vector], tuple[float, Vector]]  # value and gradient

CURVATURE_PAIRS = 10  # the curvature is estimated from the last so many steps and changes of the gradient
LINE_SEARCH_TRIES = 40  # most points that one line search tries
SLOPE, CURVATURE = 1e-4, 0.9  # constants of the weak Wolfe conditions
FLAT = 1e-10  # share of the steepest slope seen; a slope below it counts as none
AGREE = 1e-6  # relative; two minima within it count as the same


class Minimum(NamedTuple):
    point: Vector
    value: float
    converged: bool = True  # False: the iterations were used up first
    agreeing: int = 1  # how many starts came to this value


def minimise(function: Function, start: Vector, iterations: int = 500, enough: float = 0.0) -> Minimum:
    """Return where limited-memory BFGS ends (Liu and Nocedal, 1989).

    It ends where no component of the gradient exceeds 1e-10 of the largest that was met, in whatever
    unit, or `enough` in the function's; where no step helps; or, not converged, after so many iterations.
    The function may be infinite or NaN where it must not go, but not at the start.
    """
    point = np.array(start, dtype=np.float64)
    value, gradient = function(point)
    if not math.isfinite(value):
        raise ValueError(f"the function must be finite at the start, but is {value} at {point.tolist()}.")
    pairs: list[tuple[Vector, Vector]] = []
    steepest = 0.0
    for _ in range(iterations):
        steepest = max(steepest, float(np.abs(gradient).max()))
        if np.abs(gradient).max() <= max(FLAT * steepest, enough):
            return Minimum(point, value)
        direction = -_scaled(gradient, pairs)
        if direction @ gradient >= 0:  # rounding has spoilt the curvature
            pairs, direction = [], -gradient
        step = 1.0 if pairs else min(1.0, 1.0 / float(np.abs(gradient).max()))
        found = _search(function, point, value, gradient, direction, step)
        if found is None or _stands_still(value, gradient, *found[1:]):
            if not pairs:
                return Minimum(point, value)
            pairs = []
            continue
        moved, less, slope = found
        change, turned = moved - point, slope - gradient
        if change @ turned > 1e-12 * np.linalg.norm(change) * np.linalg.norm(turned):
            pairs = [*pairs[1 - CURVATURE_PAIRS :], (change, turned)]
        point, value, gradient = moved, less, slope
    return Minimum(point, value, converged=False)


def _stands_still(value: float, gradient: Vector, less: float, slope: Vector) -> bool:
    """Say whether a step has changed the value by rounding alone."""
    return value - less <= 1e-15 * max(abs(value), 1e-300) and np.abs(slope).max() >= np.abs(gradient).max()


def multistart(
    function: Function, starts: Iterable[Vector], iterations: int = 500, enough: float = 0.0
) -> Minimum:
    """Return the best minimum from all starts, and how many of them agree on it."""
    found = [minimise(function, start, iterations, enough) for start in starts]
    best = min(found, key=lambda minimum: minimum.value)
    near = AGREE * max(abs(best.value), AGREE)
    return best._replace(agreeing=sum(minimum.value <= best.value + near for minimum in found))


def _scaled(gradient: Vector, pairs: list[tuple[Vector, Vector]]) -> Vector:
    """Return the inverse of the approximate curvature times the gradient, by the two-loop recursion."""
    left, weights = gradient.copy(), []
    for change, turned in reversed(pairs):
        weight = (change @ left) / (change @ turned)
        left -= weight * turned
        weights.append(weight)
    if pairs:
        change, turned = pairs[-1]
        left *= (change @ turned) / (turned @ turned)
    for (change, turned), weight in zip(pairs, reversed(weights), strict=True):
        left += change * (weight - (turned @ left) / (change @ turned))
    return left


def _search(
    function: Function, point: Vector, value: float, gradient: Vector, direction: Vector, step: float
) -> tuple[Vector, float, Vector] | None:
    """Return a point along the direction that meets the weak Wolfe conditions, by bisection, or None.

    If the tries are used up, any point that met the first condition will do.
    """
    slope = float(gradient @ direction)
    low, high, best = 0.0, math.inf, None
    for _ in range(LINE_SEARCH_TRIES):
        moved = point + step * direction
        less, turned = function(moved)
        if not math.isfinite(less) or less > value + SLOPE * step * slope:
            high = step
        else:
            best = moved, less, turned
            if turned @ direction >= CURVATURE * slope:
                return best
            low = step
        step = 2 * low if math.isinf(high) else (low + high) / 2
    return best
