"""The mixture that a log-linear law says is best: a convex program, solved by Newton's method with barriers."""

import math

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.laws.loglinear import Law
from shoal.policies.mixing import bounded, normalise

GAP = 1e-9  # the search ends when objective - lower bound is below this share of the objective
GROWTH = math.log(8.0)  # each round adds this to the logarithm of the weight against the barriers
NEWTON = 200  # most steps in a round
CENTRED = 1e-4  # a round ends when a Newton step promises less; each bound's barrier has weight 1


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
    """Minimise sum of weight * exp(slopes x) + strength * KL(x | prior) over 0 < x < most, sum x = 1.

    The weight of the objective against the barriers, `push`, is kept as a logarithm and added to the exponents:
    from the start to the optimum, losses of steep slopes fall by factors that no number holds.
    """

    def __init__(self, slopes: Vector, weights: Vector, prior: Vector, strength: float, most: Vector):
        told = weights > 0
        self.slopes, self.weights = slopes[told], np.log(weights[told])
        self.prior, self.strength = prior, math.log(strength) if strength else -math.inf
        self.most = np.where(most < 1, most, math.inf)  # shares that sum to 1 need no other bound

    def solve(self, start: Vector) -> Vector:
        """Follow the central path until the barriers count for less than the gap."""
        at, push = start, -self.size(start)
        while math.log(2 * len(at) / GAP) - push > self.size(at):
            push += GROWTH
            at = self.centred(at, push)
        return at

    def size(self, at: Vector) -> float:
        """Return the logarithm of what the gap is relative to: the losses that fall, and the strength."""
        return float(np.logaddexp.reduce([*(self.weights + self.slopes @ at), self.strength]))

    def centred(self, at: Vector, push: float) -> Vector:
        """Minimise exp(push) * objective + barriers from a point inside, by Newton steps that keep the sum."""
        for _ in range(NEWTON):
            gradient, curvature = self.slope(at, push)
            step = self.newton(at, gradient, curvature)
            promised = -float(step @ gradient)
            step *= self.inside(at, step)
            if promised < CENTRED:
                return np.asarray(at + step)  # so near the last step is the most exact one
            while not self.change(at, step, push) <= 0.25 * float(step @ gradient):
                step /= 2
            at = at + step
        raise ArithmeticError(f"{NEWTON} of Newton's steps found no optimum; they came to {at.tolist()}.")

    def newton(self, at: Vector, gradient: Vector, curvature: Vector) -> Vector:
        """Return the step to where the gradient would be the same for all groups."""
        room = 1 / np.hypot(1 / at, 1 / (self.most - at))
        # the share furthest from its bounds gives what the others take, which keeps the sum to the last digit
        last = int(np.argmax(room))
        others = np.delete(np.eye(len(at)), last, axis=1)
        others[last] = -1.0
        others *= np.delete(room, last)  # shares near a bound would spoil the solution
        solved = np.linalg.solve(others.T @ curvature @ others, others.T @ gradient)
        return np.asarray(-others @ solved)

    def inside(self, at: Vector, step: Vector) -> float:
        """Return the largest length up to 1 that stays inside."""
        down, up = step < 0, step > 0
        lengths = np.concatenate([-at[down] / step[down], (self.most - at)[up] / step[up], [1 / 0.99]])
        return float(0.99 * lengths.min())

    def change(self, at: Vector, step: Vector, push: float) -> float:
        """Return by how much a step changes objective and barriers: two values would hide it by rounding."""
        grown = np.log1p(step / at)
        with np.errstate(over="ignore", invalid="ignore"):  # far up a steep slope
            losses = float(self.falling(at, push) @ np.expm1(self.slopes @ step))
        held = float(step @ np.log(at / self.prior) + (at + step) @ grown)
        barriers = grown.sum() + np.log1p(-step / (self.most - at)).sum()
        return losses + math.exp(push + self.strength) * held - float(barriers)

    def falling(self, at: Vector, push: float) -> Vector:
        return np.asarray(np.exp(push + self.weights + self.slopes @ at))

    def slope(self, at: Vector, push: float) -> tuple[Vector, Vector]:
        """Return the gradient, but for a number that is the same for all groups, and the curvature."""
        falling, strength, room = self.falling(at, push), math.exp(push + self.strength), self.most - at
        gradient = self.slopes.T @ falling + strength * np.log(at / self.prior) - 1 / at + 1 / room
        bent = strength / at + 1 / at**2 + 1 / room**2
        return gradient, (self.slopes.T * falling) @ self.slopes + np.diag(bent)
