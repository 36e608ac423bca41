"""A mixture from a swarm of small runs: which runs to make, and what their losses propose, with an interval."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from policies.laws.loglinear import fit_law
from policies.laws.optimum import best_mixture
from policies.laws.regmix import draw_mixtures, proposals
from policies.mixing import Vector, bounded, normalise
from policies.ranks import spearman

FOLDS = 5
INTERVAL = (0.05, 0.95)  # quantiles of what other draws of the runs propose


@dataclass(frozen=True)
class Search:
    """Fit a log-linear law to `runs` small runs and take its optimum near the prior, which is by rows.

    Without `runs` there are four for each group: a law has a parameter more than groups, and the rest speaks
    against it. `strength` is what a unit of KL divergence from the prior costs, in units of the objective.
    """

    runs: int = 0
    strength: float = 0.05
    draws: int = 40  # of the runs, for the interval
    objective: tuple[float, ...] = ()  # a weight a target; left out, the mean over targets

    def __post_init__(self) -> None:
        if self.runs < 0 or not self.strength >= 0 or self.draws < 2:
            raise ValueError(
                f"runs and strength must be at least 0 and draws at least 2, but got {self.runs}, "
                f"{self.strength}, {self.draws}."
            )

    def count(self, groups: int) -> int:
        """Return how many runs to make; raises where they are fewer than a law needs."""
        if self.runs and self.runs < groups + 2:
            raise ValueError(
                f"a law of {groups} groups needs at least {groups + 2} runs, but runs is {self.runs}: ask for "
                f"more, {4 * groups} are good."
            )
        return self.runs or 4 * groups


class Proposal(NamedTuple):
    """What a swarm proposes; losses are of the objective, as the law predicts them at the swarm's size."""

    mixture: Vector  # (groups,)
    low: Vector  # (groups,) of the interval
    high: Vector
    loss: float
    loss_low: float  # over other draws of the runs, each judged by the law of all
    loss_high: float
    controls: dict[str, tuple[Vector, float]]  # the plain mixtures beside it, and their losses
    correlation: float  # Spearman's over runs that were left out of the fit; NaN where it cannot be said


def design(search: Search, rows: Vector, rng: np.random.Generator, caps: Vector | float = 1.0) -> Vector:
    """Return the mixtures (runs, groups) to train: equal shares, by rows, then draws around the latter."""
    groups = len(rows)
    plain = controls(rows, caps)
    first = np.array([plain["stratified"], plain["proportional"]])
    return np.vstack([first, draw_mixtures(rows, search.count(groups) - 2, rng, caps=caps)])


def controls(rows: Vector, caps: Vector | float = 1.0) -> dict[str, Vector]:
    """Return the plain mixtures that every proposal is held against, within the caps."""
    return {
        "stratified": bounded(np.full(len(rows), 1 / len(rows)), 0.0, caps),
        "proportional": bounded(normalise(rows), 0.0, caps),
    }


def offer(
    search: Search,
    mixtures: Vector,
    losses: Vector,
    rows: Vector,
    rng: np.random.Generator,
    caps: Vector | float = 1.0,
) -> Proposal:
    """Return the proposal of a swarm: `mixtures` (runs, groups) and their `losses` (runs, targets).

    Runs whose losses are not finite are left out; the rest must be enough for a law.
    """
    fine = np.isfinite(losses).all(axis=1)
    mixtures, losses = mixtures[fine], losses[fine]
    targets = losses.shape[1]
    weights = normalise(search.objective) if search.objective else np.full(targets, 1 / targets)

    law = fit_law(mixtures, losses)

    def best(some: Vector, of: Vector) -> Vector:
        return best_mixture(fit_law(some, of, near=law), rows, search.strength, caps, weights)

    mixture = best_mixture(law, rows, search.strength, caps, weights)
    others = proposals(best, mixtures, losses, search.draws, rng)
    low, high = np.quantile(others, INTERVAL, axis=0)
    loss_low, loss_high = np.quantile(law.losses(others) @ weights, INTERVAL).tolist()
    single = mixtures[int(np.argmin(losses @ weights))]  # what a search without a law would take
    beside = {**controls(rows, caps), "best of the runs": single}
    return Proposal(
        mixture,
        low,
        high,
        float(law.losses(mixture[None])[0] @ weights),
        loss_low,
        loss_high,
        {name: (other, float(law.losses(other[None])[0] @ weights)) for name, other in beside.items()},
        left_out(mixtures, losses, weights, rng),
    )


def left_out(mixtures: Vector, losses: Vector, weights: Vector, rng: np.random.Generator) -> float:
    """Return the rank correlation of predicted and true losses, each run predicted by a fit without it."""
    runs, groups = mixtures.shape
    folds = np.array_split(rng.permutation(runs), min(FOLDS, runs))
    if runs - max(map(len, folds)) < groups + 2:
        return float("nan")
    predicted = np.empty(runs)
    for fold in folds:
        kept = np.setdiff1d(np.arange(runs), fold)
        predicted[fold] = fit_law(mixtures[kept], losses[kept]).losses(mixtures[fold]) @ weights
    return spearman(predicted, losses @ weights)
