"""Likeness to a target: the cosine of a row's vector to the target's nearest rows, or to their mean."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.selection.quantise import unit_rows

ROWS_AT_ONCE, TARGETS_AT_ONCE = 1024, 4096  # cosines of so many rows to so many of a target are in memory

CANCELLED = 1e-9  # a mean of rows of length 1 that is shorter is rounding alone


def directions(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return rows at length 1, and which rows can be: others, not finite or all zeros, become zeros."""
    values = vectors.astype(np.float64)
    known = np.isfinite(values).all(axis=1) & (values != 0).any(axis=1)
    values[~known] = 0.0
    return unit_rows(values), known


def mean_direction(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the direction of the mean of rows of length 1, `(1, width)`; zeros if they cancel."""
    mean = unit.mean(axis=0, keepdims=True)
    return unit_rows(np.where(np.linalg.norm(mean) > CANCELLED, mean, 0.0))


def likeness(
    vectors: NDArray[np.floating], targets: Sequence[NDArray[np.float64]], nearest: int
) -> NDArray[np.float32]:
    """Return each row's mean cosine to its `nearest` rows of a target, `(rows,)`; NaN without a direction.

    Each target is an array of rows of length 1. Of several targets the one that a row is most like counts; of a
    target with fewer rows than `nearest` all count.
    """
    found = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        unit, known = directions(vectors[start : start + ROWS_AT_ONCE])
        likest = np.max([nearest_cosines(unit, target, nearest) for target in targets], axis=0)
        found[start : start + len(unit)] = np.where(known, likest, np.nan)
    return found


def nearest_cosines(unit: NDArray[np.float64], target: NDArray[np.float64], nearest: int) -> Vector:
    """Return the mean of each row's largest cosines to the rows of one target, `(rows,)`."""
    best = np.empty((len(unit), 0))
    for start in range(0, len(target), TARGETS_AT_ONCE):
        best = np.concatenate([best, unit @ target[start : start + TARGETS_AT_ONCE].T], axis=1)
        if best.shape[1] > nearest:
            best = np.partition(best, -nearest, axis=1)[:, -nearest:]
    return np.asarray(best.mean(axis=1))
