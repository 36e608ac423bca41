"""One-dimensional k-means, exact where values are few, else on a histogram."""

import numpy as np
from numpy.typing import NDArray

BINS = 2048


def cut_points(values: NDArray[np.floating], groups: int) -> NDArray[np.float64]:
    """Return the borders between `groups` groups with the least sum of squared distances from their means.

    There are `groups - 1` of them, ascending, each the least value of the group above it; fewer where there
    are fewer different values. Values may be of any sign and size: moved or stretched, they group alike.
    """
    sorted_values = np.sort(values.astype(np.float64))
    if not len(sorted_values):
        return np.empty(0)
    # the first value of each bin that has any
    starts = np.flatnonzero(np.append(True, np.diff(_places(sorted_values)) > 0))
    if len(starts) < 2:
        return np.empty(0)
    middle = sorted_values[len(sorted_values) // 2]  # sums of large numbers would lose the digits
    sums = np.add.reduceat(sorted_values - middle, starts)
    counts = np.diff(np.append(starts, len(sorted_values))).astype(np.float64)
    chosen = _best_starts(counts, sums, min(groups, len(starts)))
    return np.asarray(sorted_values[starts[chosen]])


def _places(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ascending numbers, equal for values of one bin; if few values differ, each has its own.

    Else there are BINS bins, of one width about the median and in proportion to the distance far from it.
    """
    if (np.diff(values) > 0).sum() < BINS:
        return values
    away = values - np.median(values)
    scale = float(np.median(np.abs(away))) or float(np.abs(away).mean())
    bent = np.arcsinh(away / scale)
    return np.asarray(np.floor((bent - bent[0]) * (BINS / np.ptp(bent))))


def _best_starts(counts: NDArray[np.float64], sums: NDArray[np.float64], groups: int) -> NDArray[np.int64]:
    """Return the first bins of all groups but the lowest, by dynamic programming (Wang and Song, 2011).

    The squared distances differ by a constant from minus the sum of `sums^2 / counts` over the groups.
    """
    bins = len(counts)
    before = np.concatenate([[0.0], np.cumsum(counts)])
    total = np.concatenate([[0.0], np.cumsum(sums)])
    gain = np.concatenate([[0.0], total[1:] ** 2 / before[1:]])  # if the first bins are one group
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
