"""RegMix: many small runs at drawn mixtures, a regression on them, and the best of many predicted ones."""

from collections.abc import Callable

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.mixing import apportion, normalise

Predictor = Callable[[Vector], Vector]  # (mixtures, groups) -> losses (mixtures,)
Regressor = Callable[[Vector, Vector], Callable[[Vector], Vector]]  # mixtures and their losses -> predictor

STRENGTHS = tuple(np.geomspace(0.1, 5.0, 15).tolist())  # each mixture draws the strength of its Dirichlet
MOST_TIMES_PRIOR = 15.0  # a share is at most so many times its prior
GRID = 2e-4  # shares are multiples of it; smaller draws become 0
DRAWS_FOR_EACH = 1000  # most draws for each mixture that is wanted


def draw_mixtures(
    prior: Vector,
    count: int,
    rng: np.random.Generator,
    temperature: float = 0.5,
    caps: Vector | float = 1.0,
) -> Vector:
    """Return (count, groups) different mixtures for small runs (Liu et al., 2025).

    Each is a Dirichlet draw of random strength around prior ** temperature, refused where a share exceeds
    its cap or 15 times its prior, and rounded to the grid so that it sums to 1 exactly.
    """
    shares = normalise(prior)
    centre = normalise(np.where(shares > 0, shares**temperature, 0.0))
    most = np.minimum(np.minimum(1.0, MOST_TIMES_PRIOR * shares), caps)
    held = centre > 0
    found: dict[tuple[int, ...], None] = {}  # in units of the grid, in the order of drawing
    for _ in range(DRAWS_FOR_EACH * count):
        if len(found) == count:
            break
        drawn = np.zeros(len(centre))
        drawn[held] = rng.dirichlet(np.maximum(rng.choice(STRENGTHS) * centre[held], 1e-3))
        drawn[drawn < GRID] = 0.0
        if not drawn.sum() > 0:
            continue
        units, _ = apportion(drawn / drawn.sum(), round(1 / GRID), np.zeros(len(drawn)))
        if (units * GRID <= most + 1e-12).all():
            found[tuple(units.tolist())] = None
    if len(found) < count:
        raise ValueError(
            f"only {len(found)} of {count} different mixtures were found within caps {most.tolist()}."
        )
    return np.array(list(found), dtype=np.float64) * GRID


def propose(predict: Predictor, candidates: Vector, keep: int) -> Vector:
    """Return the mean of the `keep` candidates of the lowest predicted loss.

    More than one, since the regression is uncertain; the mean of good corners may be a bad middle.
    """
    order = np.argsort(predict(candidates), kind="stable")[:keep]
    return normalise(candidates[order].mean(axis=0))


def proposals(
    fit_and_propose: Callable[[Vector, Vector], Vector],
    mixtures: Vector,
    losses: Vector,
    times: int,
    rng: np.random.Generator,
) -> Vector:
    """Return the proposals, (times, groups), that other draws of the runs lead to (the bootstrap: Efron, 1979).

    Their quantiles are the interval of a proposal. Draws with too few different runs are drawn again.
    """
    runs, groups = mixtures.shape
    found: list[Vector] = []
    while len(found) < times:
        drawn = rng.integers(runs, size=runs)
        if len(np.unique(drawn)) >= min(groups + 2, runs):
            found.append(fit_and_propose(mixtures[drawn], losses[drawn]))
    return np.array(found)
