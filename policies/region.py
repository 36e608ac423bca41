"""How far from its donor a clone may go (Wan et al., 2022), read from what exploring has brought."""

from collections.abc import Iterable
from itertools import groupby

from shoal.policies.explore import Interval

SMALLEST, LARGEST = 0.05, 1.0  # half-lengths; a whole domain is 1 wide
FACTOR = 1.5
SUCCESSES, FAILURES = 2, 5  # after so many rounds in a row the region grows, or shrinks


def half_length(intervals: Iterable[Interval], start: float) -> float:
    """Return the region's half-length after these intervals, beginning with `start`.

    It grows when a new choice gained the most of its round often enough on end, and shrinks when none did;
    below the smallest it starts again. A round is what began at the same step: members that are never at
    the same step tell nothing.
    """
    length, streak = start, 0  # successes on end, or failures as a negative number
    for _, group in groupby(sorted(intervals, key=_begun), key=_begun):
        round_ = list(group)
        explored = max((each.gain for each in round_ if each.explored), default=None, key=_ascending)
        known = max((each.gain for each in round_ if not each.explored), default=None, key=_ascending)
        if explored is None or known is None:
            continue
        won = _ascending(explored) > _ascending(known)
        streak = max(streak, 0) + 1 if won else min(streak, 0) - 1
        if streak == SUCCESSES:
            length, streak = min(length * FACTOR, LARGEST), 0
        elif streak == -FAILURES:
            length, streak = length / FACTOR, 0
            length = length if length >= SMALLEST else start
    return length


def _begun(interval: Interval) -> int:
    return interval.begun


def _ascending(gain: float) -> float:
    return gain if gain == gain else float("-inf")  # NaN, a diverged member, gained the least
