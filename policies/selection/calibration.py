"""How often scores come in a target: odds that rise with the score, fitted to held-out rows of the target."""

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector


def calibrated(scores: Vector, theirs: Vector) -> Vector:
    """Return for each score of the pool `(rows,)` the log of target rows for each pool row near it.

    `theirs` `(target rows,)` are scores of rows that the scores were not fitted to. The odds are the likeliest
    ones that never fall as the score rises (isotonic regression: Zadrozny & Elkan, 2002). Rows below all of
    the target's get half a target row together, or half the least odds above, if that is less: they are drawn
    where nothing better is left. Raises ValueError without a row of the target.
    """
    if not len(theirs):
        raise ValueError("calibration needs at least one held-out row of the target, but got none.")
    marks = np.sort(theirs)
    place = np.searchsorted(marks, scores, side="right")  # target rows at or below each score
    upto = np.cumsum(np.bincount(place, minlength=len(marks) + 1))
    odds = slopes_below(upto)
    some = odds[odds > 0]
    least = 0.5 / max(int(upto[0]), 1)
    odds[odds <= 0] = min(least, 0.5 * float(some.min())) if len(some) else least
    return np.log(odds)[place]


def slopes_below(upto: NDArray[np.int64]) -> Vector:
    """Return the slope, at each point, of the greatest convex curve from 0 below the points `(upto[k], k)`.

    scipy has an isotonic regression too; the policies need nothing else of it, and it would take one number for
    each row of the pool where this takes one for each row of the target.
    """
    at, height = [0], [0]
    for number, here in enumerate(upto.tolist()):
        if here == at[-1]:
            continue  # no row of the pool lies between two of the target
        while len(at) > 1 and (height[-1] - height[-2]) * (here - at[-1]) >= (number - height[-1]) * (
            at[-1] - at[-2]
        ):
            at.pop()
            height.pop()
        at.append(here)
        height.append(number)
    slopes = np.diff(height) / np.maximum(np.diff(at), 1)
    # the curve begins flat, with the rows below all of the target's
    segment = np.searchsorted(np.array(height[1:]), np.arange(len(upto)), side="left")
    return np.asarray(slopes[np.minimum(segment, len(slopes) - 1)], np.float64)
