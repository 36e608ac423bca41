"""One-dimensional k-means, exact on a histogram."""

import numpy as np
from numpy.typing import NDArray

BINS = 4096
RANGE = (1e-7, 1e5)  # losses beyond fall into the outer bins
EDGES = np.geomspace(*RANGE, BINS - 1)


def cut_points(values: NDArray[np.floating], groups: int) -> NDArray[np.float64]:
    """Return the borders between `groups` groups with the least sum of squared distances from their means.

    There are `groups - 1` of them, ascending; fewer where the values fill fewer bins. The bins are logarithmic
    and 0.7 % wide, so that only their counts and sums need to be known.
    """
    place = np.searchsorted(EDGES, values.astype(np.float64), side="right")
    counts = np.bincount(place, minlength=BINS)
    filled = np.flatnonzero(counts)
    if len(filled) < 2:
        return np.empty(0)
    sums = np.bincount(place, weights=values, minlength=BINS).astype(np.float64)
    starts = _best_starts(counts[filled].astype(np.float64), sums[filled], min(groups, len(filled)))
    return np.asarray(EDGES[filled[starts] - 1])


def _best_starts(counts: NDArray[np.float64], sums: NDArray[np.float64], groups: int) -> NDArray[np.int64]:
    """Return the first bins of all groups but the lowest, by dynamic programming (Wang and Song, 2011).

    The squared distances differ by a constant from minus the sum of `sums^2 / counts` over the groups.
    """
    bins = len(counts)
    before = np.concatenate([[0.0], np.cumsum(counts)])
    total = np.concatenate([[0.0], np.cumsum(sums)])
    gain = np.concatenate([[0.0], total[1:] ** 2 / before[1:]])  # of one group over the first bins
    choices = np.zeros((groups, bins + 1), np.int64)
    for group in range(1, groups):
        best = np.full(bins + 1, -np.inf)
        for end in range(group + 1, bins + 1):
            starts = slice(group, end)
            gains = gain[starts] + (total[end] - total[starts]) ** 2 / (before[end] - before[starts])
            chosen = int(gains.argmax())
            best[end], choices[group, end] = gains[chosen], group + chosen
        gain = best
    found, end = [], bins
    for group in range(groups - 1, 0, -1):
        end = int(choices[group, end])
        found.append(end)
    return np.array(found[::-1], np.int64)
