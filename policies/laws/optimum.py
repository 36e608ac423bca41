"""The mixture that a log-linear law says is best: a convex program, solved by Newton's method with barriers."""

import numpy as np

from policies.laws.loglinear import Law
from policies.mixing import Vector, bounded, normalise

GAP = 1e-11  # of the objective to its lower bound, relative to the losses' size
GROWTH = 8.0  # of the weight of the objective against the barriers, from round to round
NEWTON = 60  # steps in a round at most


def best_mixture(
    law: Law,
    prior: Vector,
    strength: float = 0.0,
    caps: Vector | float = 1.0,
    objective: Vector | None = None,
) -> Vector:
    """Return the mixture of the lowest sum of objective * loss + strength * KL(mixture | prior).

    `strength` (at least 0, in units of the loss) holds it to the prior; 0 lets it go where the law says, often
    into a corner. `caps` bound the shares: rows of a group * epochs / rows to train. A group without a cap or,
    with a strength, without a prior gets nothing. The objective (targets,) is at least 0; left out, all
    targets count the same.
    """
    groups = law.slopes.shape[1]
    weights = np.ones(len(law.slopes)) if objective is None else np.asarray(objective, dtype=np.float64)
    if strength < 0 or not (weights >= 0).all() or not weights.sum() > 0:
        raise ValueError(
            f"strength and the objective must be at least 0, but got {strength}, {weights.tolist()}."
        )
    most = np.minimum(np.broadcast_to(np.asarray(caps, dtype=np.float64), (groups,)), 1.0)
    anchor = normalise(prior)
    open_groups = (most > 0) & ((anchor > 0) | (strength == 0))
    most = np.where(open_groups, most, 0.0)
    start = bounded(normalise(most), 0.0, most)  # raises where the caps cannot hold
    if open_groups.sum() == 1 or most.sum() < 1 + 1e-9:
        return start
    rest = np.where(anchor > 0, anchor, 1.0)[open_groups]
    problem = _Problem(law.slopes[:, open_groups], weights, rest, strength, most[open_groups])
    found = np.zeros(groups)
    found[open_groups] = problem.solve(normalise(most)[open_groups])
    return normalise(found)


class _Problem:
    """Minimise sum of weight * exp(slopes x) + strength * KL(x | prior) over 0 < x < most, sum x = 1."""

    def __init__(self, slopes: Vector, weights: Vector, prior: Vector, strength: float, most: Vector):
        self.slopes, self.weights, self.prior = slopes, weights, prior
        self.strength, self.most = strength, most
        self.size = float(weights @ np.exp(slopes).mean(axis=1)) + strength

    def solve(self, start: Vector) -> Vector:
        """Follow the central path until the barriers count for less than the gap."""
        at, push = start, 1.0 / self.size
        while 2 * len(at) / push > GAP * self.size:
            push *= GROWTH
            at = self.centred(at, push)
        return at

    def centred(self, at: Vector, push: float) -> Vector:
        """Minimise push * objective + barriers from a point inside, by Newton steps that keep the sum."""
        value = self.value(at, push)
        for _ in range(NEWTON):
            gradient, curvature = self.slope(at, push)
            # a step d and a multiplier: curvature d + multiplier = -gradient, sum d = 0; scaled by x so that
            # shares near 0 do not spoil the solution
            scaled = at[:, None] * curvature * at[None, :]
            solved = np.linalg.solve(scaled, np.column_stack([at * gradient, at]))
            step = -at * (solved[:, 0] - solved[:, 1] * (at @ solved[:, 0]) / (at @ solved[:, 1]))
            decrease = float(-gradient @ step)
            if decrease < 1e-12:
                break
            length = self.inside(at, step)
            while self.value(at + length * step, push) > value - 0.25 * length * decrease and length > 1e-12:
                length /= 2
            at = at + length * step
            value = self.value(at, push)
        return at

    def inside(self, at: Vector, step: Vector) -> float:
        """Return the largest length up to 1 that stays inside."""
        down, up = step < 0, step > 0
        lengths = np.concatenate([-at[down] / step[down], (self.most - at)[up] / step[up], [1 / 0.99]])
        return float(0.99 * lengths.min())

    def value(self, at: Vector, push: float) -> float:
        objective = self.weights @ np.exp(self.slopes @ at)
        if self.strength:
            objective += self.strength * (at @ np.log(at / self.prior))
        return float(push * objective - np.log(at).sum() - np.log(self.most - at).sum())

    def slope(self, at: Vector, push: float) -> tuple[Vector, Vector]:
        falling = self.weights * np.exp(self.slopes @ at)
        gradient = self.slopes.T @ falling
        curvature = (self.slopes.T * falling) @ self.slopes
        if self.strength:
            gradient = gradient + self.strength * (np.log(at / self.prior) + 1)
            curvature = curvature + np.diag(self.strength / at)
        room = self.most - at
        return push * gradient - 1 / at + 1 / room, push * curvature + np.diag(1 / at**2 + 1 / room**2)
