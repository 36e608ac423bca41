"""Choosing an exact number of rows by a key, and sharing a number of rows out."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.mixing import Counts, counts_within
from shoal.policies.ranks import ranks
from shoal.policies.sampling.chance import uniform
from shoal.policies.sampling.interface import Columns, Ids

DRAWN_AT_ONCE = 1 << 16  # rows; their draws take several times what they leave


def best_rows(key: Vector, count: int) -> NDArray[np.bool_]:
    """Return which `count` rows have the largest keys; of equal ones the first come first."""
    if count >= len(key):
        return np.ones(len(key), bool)
    if count <= 0:
        return np.zeros(len(key), bool)
    # a partition is one copy of the keys, an order of them would be one number more for each
    cut = np.partition(key, len(key) - count)[len(key) - count]
    chosen = key > cut
    chosen[np.flatnonzero(key == cut)[: count - int(chosen.sum())]] = True
    return np.asarray(chosen)


def lowest(key: Vector, chosen: NDArray[np.bool_]) -> float:
    """Return the cut: the least key that was chosen, infinite where none was."""
    return float(key.min(where=chosen, initial=np.inf))


def quotas(weights: Vector, budget: int, room: Counts) -> Counts:
    """Share a budget out in proportion to weights by the largest remainder; nobody gets more than its room."""
    due = weights / weights.sum() * budget
    counts = np.floor(due + 1e-9).astype(np.int64)
    most_owed = np.argsort(counts - due, kind="stable")
    counts[most_owed[: budget - int(counts.sum())]] += 1
    return counts_within(counts, room)


def gumbel(seed: int, purpose: str, ids: Ids) -> Vector:
    """Return a draw from the standard Gumbel distribution for each id, `(rows,)`."""
    found = np.empty(len(ids))
    for start in range(0, len(ids), DRAWN_AT_ONCE):
        part = slice(start, start + DRAWN_AT_ONCE)
        found[part] = -np.log(-np.log(uniform(seed, purpose, 0, ids[part])))
    return found


def mixed_scores(columns: Columns, weights: Mapping[str, float]) -> Vector:
    """Return one score of several, in weighted ranks between 0 and 1: their units do not matter.

    A row where one of them is not finite has NaN.
    """
    found: Vector | None = None
    for name, weight in weights.items():
        values = columns[name].astype(np.float64)
        known = np.isfinite(values)
        placed = np.full(len(values), np.nan)
        placed[known] = ranks(values[known]) / max(int(known.sum()) - 1, 1)
        found = weight * placed if found is None else found + weight * placed
    if found is None:
        raise ValueError("a mix of scores must name at least one.")
    return found
