"""Rank correlation."""

import numpy as np

from shoal.policies.arrays import Vector


def ranks(values: Vector) -> Vector:
    """Return the rank of each value from 0; equal values share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[places])


def spearman(first: Vector, second: Vector) -> float:
    """Return Spearman's rank correlation; NaN where one side is constant."""
    one, other = (ranks(values) - (len(values) - 1) / 2 for values in (first, second))
    size = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / size if size else float("nan")
