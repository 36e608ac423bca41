"""The log-linear mixing law: a loss is a floor plus an exponential of the mixture (Ye et al., 2025)."""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.minimise import Function, Minimum, minimise

HUBER_NATS = 0.02  # nats
FLOORS = (0.0, 0.5, 0.8, 0.95)  # shares of the smallest loss; a fit starts once from each
FARTHEST = 50.0  # larger exponents count as infinite loss; only a line search gets there
ROUNDS, ITERATIONS = 100, 100  # most rounds in a fit, most iterations in a round; some 5 rounds are needed
FLATTEST = 1e-8  # share of the largest curvature; flatter directions count as this flat


class Law(NamedTuple):
    """loss_i(p) = exp(floors_i) + exp(slopes_i . p); a negative slope of a group lowers the loss.

    Shifting all slopes of a row by one number is a factor, so there is no other constant.
    """

    floors: Vector  # (targets,) logarithms
    slopes: Vector  # (targets, groups)

    def losses(self, mixtures: Vector) -> Vector:
        """Return (mixtures, targets) in the unit that was fitted."""
        return np.asarray(np.exp(self.floors) + np.exp(mixtures @ self.slopes.T))


def fit_law(mixtures: Vector, losses: Vector, decay: float = 1e-6, near: Law | None = None) -> Law:
    """Fit each target's law to `losses` (runs, targets) of `mixtures` (runs, groups) by the Huber loss.

    `decay` keeps the slopes near one another, against runs that hardly tell groups apart. With `near`, a law
    of nearly the same runs, it starts there alone, which is four times quicker. Needs two runs more than
    there are groups: a law has one parameter more than groups, and one run must speak against it. A fit that
    has not come to its end is warned of.
    """
    runs, groups = mixtures.shape
    if losses.shape[:1] != (runs,) or losses.ndim != 2:
        raise ValueError(f"losses must be (runs, targets) for {runs} runs, but have the shape {losses.shape}.")
    if runs < groups + 2:
        raise ValueError(f"a law of {groups} groups needs at least {groups + 2} runs, but there are {runs}.")
    if not (np.isfinite(losses).all() and (losses > 0).all()):
        raise ValueError("losses must be finite and above 0.")
    known = [None] * losses.shape[1] if near is None else np.column_stack([near.floors, near.slopes])
    found = [_fit(mixtures, losses[:, target], decay, known[target]) for target in range(losses.shape[1])]
    return Law(np.array([point[0] for point in found]), np.array([point[1:] for point in found]))


def _fit(mixtures: Vector, losses: Vector, decay: float, near: Vector | None) -> Vector:
    """Return the floor's logarithm and the slopes; losses are divided by their median meanwhile."""
    level = float(np.median(losses))
    heights = losses / level

    def function(point: Vector) -> tuple[float, Vector]:
        return _misfit(point, mixtures, heights, HUBER_NATS / level, decay)

    def axes(point: Vector) -> Vector:
        return _axes(point, mixtures, heights, HUBER_NATS / level, decay)

    starts = _starts(mixtures, heights) if near is None else [near - math.log(level)]
    best = min((_minimum(function, axes, start) for start in starts), key=lambda found: found.value)
    if not best.converged:
        said = "the fit of a mixing law has not converged: its predictions may be off."
        warnings.warn(said, RuntimeWarning, stacklevel=3)
    return best.point + math.log(level)


def _minimum(function: Function, axes: Callable[[Vector], Vector], start: Vector) -> Minimum:
    """Minimise along axes that bend equally much, chosen anew in each round.

    Groups that were sampled at small shares alone make the misfit a hundred thousand times flatter in some
    directions than in others, along which the search would take thousands of steps.
    """
    best = Minimum(start, math.inf)
    for _ in range(ROUNDS):
        origin, turned = best.point, axes(best.point)

        def along(at: Vector, origin: Vector = origin, turned: Vector = turned) -> tuple[float, Vector]:
            value, gradient = function(origin + turned @ at)
            return value, turned.T @ gradient

        found = minimise(along, np.zeros(len(start)), ITERATIONS)
        best = found._replace(point=origin + turned @ found.point)
        if found.converged:
            break
    return best


def _axes(point: Vector, mixtures: Vector, heights: Vector, huber: float, decay: float) -> Vector:
    """Return (parameters, axes) along which the misfit's curvature is about 1.

    It is that of the squares which the Huber loss stands for (Gauss and Newton), with the decay's.
    """
    floor, falling = math.exp(point[0]), np.exp(mixtures @ point[1:])
    off = (floor + falling - heights) / huber
    slopes = np.column_stack([np.full(len(off), floor), mixtures * falling[:, None]]) / huber
    weights = 1 / np.maximum(np.abs(off), 1.0) / len(off)
    curvature = (slopes.T * weights) @ slopes
    groups = len(point) - 1
    curvature[1:, 1:] += 2 * decay * (np.eye(groups) - 1 / groups)
    values, vectors = np.linalg.eigh(curvature)
    return np.asarray(vectors / np.sqrt(np.maximum(values, FLATTEST * values[-1])))


def _starts(mixtures: Vector, heights: Vector) -> list[Vector]:
    """Return for each guess of the floor the slopes that least squares gives to the logarithm of the rest."""
    starts = []
    for share in FLOORS:
        floor = max(share, 1e-3) * float(heights.min())
        rest = np.log(np.maximum(heights - floor, 1e-3))
        gram = mixtures.T @ mixtures + 1e-6 * np.eye(mixtures.shape[1])
        starts.append(np.append(math.log(floor), np.linalg.solve(gram, mixtures.T @ rest)))
    return starts


def _misfit(
    point: Vector, mixtures: Vector, heights: Vector, huber: float, decay: float
) -> tuple[float, Vector]:
    """Return the mean Huber loss in units of its width, with the decay, and its gradient."""
    floor, slopes = point[0], point[1:]
    exponents = mixtures @ slopes
    if floor > FARTHEST or exponents.max() > FARTHEST:
        return math.inf, point
    falling = np.exp(exponents)
    off = (math.exp(floor) + falling - heights) / huber
    value = np.where(np.abs(off) <= 1, 0.5 * off**2, np.abs(off) - 0.5).mean()
    pull = np.clip(off, -1, 1) / (huber * len(off))
    centred = slopes - slopes.mean()
    gradient = np.append(pull.sum() * math.exp(floor), mixtures.T @ (pull * falling) + 2 * decay * centred)
    return float(value + decay * centred @ centred), gradient


def ridge(mixtures: Vector, losses: Vector, penalty: float = 1e-3) -> Callable[[Vector], Vector]:
    """Return a predictor by linear regression without a constant: a mixture sums to 1, so it needs none."""
    gram = mixtures.T @ mixtures + penalty * np.eye(mixtures.shape[1])
    weights = np.linalg.solve(gram, mixtures.T @ losses)
    return lambda others: np.asarray(others @ weights)


def log_linear(mixtures: Vector, losses: Vector) -> Callable[[Vector], Vector]:
    """Return a predictor by the law; like `ridge`'s, its losses are (mixtures, targets)."""
    return fit_law(mixtures, losses).losses
