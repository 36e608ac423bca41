"""STORM: the features by which losses are rescaled (Heck et al., 2025); its gradients: `trainables/storm.py`.

A row is passed several times with dropout. From its losses and largest probabilities come 19 features, by
which a small network gives it a weight: how it stands, and how it stands among the rows of the last batch of
the same class on which the model agrees with the label as it does here, or disagrees.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector

FEATURES = 19
LEAST = 1e-8  # least spread; a group of fewer than two rows has this one


class Passes(NamedTuple):
    """What some passes over a batch of rows gave."""

    losses: Vector  # (passes, rows)
    probabilities: Vector  # (passes, rows), of the likeliest class
    labels: NDArray[np.int64]  # (rows,)
    agrees: NDArray[np.bool_]  # (rows,), whether the likeliest class is the label


def features(now: Passes, before: Passes | None) -> Vector:
    """Return `(rows, 19)`; `before` is the last batch, and the first one is compared with itself."""
    memory = now if before is None else before
    own, remembered = row_moments(now), row_moments(memory)
    found = np.empty((len(now.labels), FEATURES))
    found[:, :4], found[:, 18] = own, now.agrees
    for label in np.unique(now.labels):
        for agrees in (False, True):
            mine = (now.labels == label) & (now.agrees == agrees)
            if mine.any():
                group = (memory.labels == label) & (memory.agrees == agrees)
                found[mine, 4:18] = against(own[mine], remembered[group])
    return found


def row_moments(passes: Passes) -> Vector:
    """Return mean and spread of the loss and of the probability over the passes, `(rows, 4)`."""
    spreads = [sample_deviation(values) for values in (passes.losses, passes.probabilities)]
    return np.stack(
        [passes.losses.mean(axis=0), spreads[0], passes.probabilities.mean(axis=0), spreads[1]], axis=1
    )


def against(own: Vector, group: Vector) -> Vector:
    """Return how rows stand to their group in memory, `(rows, 14)`.

    That is the group's mean and spread of each of the four moments; divergence and overlap of the row's
    losses, as a Gaussian, with the group's; and mean and spread of these two over the group.
    """
    if not len(group):
        group = own
    means, spreads = group.mean(axis=0), sample_deviation(group)
    centre, width = float(means[0]), float(spreads[0])
    mine, theirs = (
        np.stack(
            [divergence(rows[:, 0], rows[:, 1], centre, width), overlap(rows[:, 0], rows[:, 1], centre, width)]
        )
        for rows in (own, group)
    )
    fixed = np.concatenate([means, spreads, theirs.mean(axis=1), sample_deviation(theirs.T)])
    return np.concatenate(
        [np.tile(fixed[:8], (len(own), 1)), mine.T, np.tile(fixed[8:], (len(own), 1))], axis=1
    )


def sample_deviation(values: Vector) -> Vector:
    """Return the standard deviation over the first axis, of a sample; of fewer than two values the least."""
    if len(values) < 2:
        return np.full(values.shape[1:], LEAST)
    return np.maximum(values.std(axis=0, ddof=1), LEAST)


def divergence(mean: Vector, width: Vector, centre: float, wide: float) -> Vector:
    """Return the Kullback-Leibler divergence from N(centre, wide); 0 where either has no spread."""
    found = np.log(wide / width) + (width**2 + (mean - centre) ** 2) / (2 * wide**2) - 0.5
    return np.where((width <= LEAST) | (wide <= LEAST), 0.0, found)


def overlap(mean: Vector, width: Vector, centre: float, wide: float) -> Vector:
    """Return the area that N(mean, width) and N(centre, wide) have in common."""
    return np.array([_overlap(m, w, centre, wide) for m, w in zip(mean, width, strict=True)])


def _overlap(first: float, narrow: float, second: float, wide: float) -> float:
    if narrow > wide:
        first, narrow, second, wide = second, wide, first, narrow
    apart = second - first
    if wide - narrow < 1e-9 * wide:
        return 2 * _below(-abs(apart) / (2 * wide))
    # the densities cross twice; between the crossings the narrow one is the higher
    squares = wide**2 - narrow**2
    root = narrow * wide * math.sqrt(apart**2 + 2 * squares * math.log(wide / narrow))
    middle = first - narrow**2 * apart / squares
    low, high = middle - root / squares, middle + root / squares
    inside = _below((high - second) / wide) - _below((low - second) / wide)
    outside = 1 - _below((high - first) / narrow) + _below((low - first) / narrow)
    return inside + outside


def _below(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))
