"""Olmix: priors, proposals that stay near them, and mixtures that are used again when groups change."""

from collections.abc import Sequence

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.laws.regmix import Predictor
from shoal.policies.mixing import bounded, normalise

ROUNDS = 10
NEAR_BEST = 1e-3  # loss; mixtures that are predicted to be so near the best count as equally good


def simulate(
    predict: Predictor,
    prior: Vector,
    rng: np.random.Generator,
    draws: int = 10_000,
    caps: Vector | float = 1.0,
    anchor: float = 0.5,
) -> Vector:
    """Return a good mixture by a search in rounds of Dirichlet draws that close in on it (Chen et al., 2026).

    Each round draws around the mean of the mixtures within 1e-3 of the best, more narrowly than the last;
    the end is blended with the prior, `anchor` of it. Caps are kept by projection.
    """
    start = bounded(normalise(prior), 0.0, caps)
    most = np.minimum(np.broadcast_to(np.asarray(caps, dtype=np.float64), start.shape), 1.0)
    centre, best, held = start, start, start > 0
    lowest = float(predict(start[None])[0])
    for round_ in range(ROUNDS):
        drawn = np.zeros((draws, len(start)))
        drawn[:, held] = rng.dirichlet(np.maximum(2.0**round_ * len(start) * centre[held], 1e-2), size=draws)
        for place in np.flatnonzero((drawn > most + 1e-12).any(axis=1)):
            drawn[place] = bounded(drawn[place] / drawn[place].sum(), 0.0, most)
        losses = predict(drawn)
        lowest = min(lowest, float(losses.min()))
        near = drawn[losses <= lowest + NEAR_BEST]
        if len(near):
            centre = best = near.mean(axis=0)
    return bounded(normalise((1 - anchor) * best + anchor * start), 0.0, most)


def collapse(mixtures: Vector, frozen: Sequence[int]) -> Vector:
    """Return mixtures (runs, groups) with the frozen groups as one, in the last place.

    Their ratios are kept from an earlier search, so that only what is new is searched again.
    """
    free = [group for group in range(mixtures.shape[1]) if group not in set(frozen)]
    return np.column_stack([mixtures[:, free], mixtures[:, list(frozen)].sum(axis=1)])


def expand(mixture: Vector, frozen: Sequence[int], ratios: Vector) -> Vector:
    """Return a mixture of all groups out of one with the frozen groups in one: the inverse of `collapse`."""
    groups = len(mixture) - 1 + len(frozen)
    free = [group for group in range(groups) if group not in set(frozen)]
    whole = np.zeros(groups)
    whole[free] = mixture[:-1]
    whole[list(frozen)] = mixture[-1] * normalise(ratios)
    return whole


def without(mixture: Vector, group: int) -> Vector:
    """Return the mixture without a group: the others keep their ratios."""
    kept = mixture.copy()
    kept[group] = 0.0
    return normalise(kept)
