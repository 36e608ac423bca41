"""Proportions over groups, and how a batch is cut to them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def normalise(weights: Sequence[float] | Vector) -> Vector:
    """Return proportions that sum to 1; weights must be finite, not negative and not all zero."""
    shares = np.asarray(weights, dtype=np.float64)
    if shares.ndim != 1 or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise ValueError(f"weights must be finite, at least 0 and not all 0, but got {list(weights)}.")
    return np.asarray(shares / shares.sum())


def apportion(proportions: Vector, batch: int, debt: Vector) -> tuple[NDArray[np.int64], Vector]:
    """Return whole rows per group that sum to `batch`, and the debt to carry to the next batch.

    Everybody gets the whole rows that are due, with what earlier batches still owe; of the rest a group
    gets one the sooner, the sooner it would otherwise be owed more than a row. With fixed proportions the
    running total of a group so stays within one row of `proportion * rows` after every batch, as it does
    for unit jobs served by their deadlines (Steiner and Yeomans, 1993); by the largest remainder it does not.
    """
    due = proportions * batch + debt
    counts = np.maximum(np.floor(due), 0).astype(np.int64)
    missing = batch - int(counts.sum())
    rows_left = (1 - (due - counts)) / np.maximum(proportions, 1e-300)
    rows_left[due <= counts] = np.inf  # nothing is owed: a row would be one too many
    # a stable sort: equal deadlines go to the earlier group, so the cut is deterministic
    order = np.argsort(rows_left, kind="stable")
    while missing > 0:
        counts[order[:missing]] += 1
        missing = batch - int(counts.sum())
    for group in order[::-1]:
        if missing >= 0:
            break
        taken = min(int(counts[group]), -missing)
        counts[group] -= taken
        missing += taken
    return counts, due - counts
