"""Proportions over groups: their arithmetic, and how a batch is cut to them."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector

Counts = NDArray[np.int64]


def normalise(weights: Sequence[float] | Vector) -> Vector:
    """Return proportions that sum to 1; weights must be finite, not negative and not all zero."""
    shares = np.asarray(weights, dtype=np.float64)
    if shares.ndim != 1 or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise ValueError(f"weights must be finite, at least 0 and not all 0, but got {list(weights)}.")
    return np.asarray(shares / shares.sum())


def dilution(mixed: Vector, alone: Vector) -> Vector:
    """Return by how much a mixture exceeds the best single group in loss on each target: `(targets,)`, in nats.

    `mixed` is the mixture's loss on each target, `alone` that of each group by itself, `(groups, targets)`.
    Below 0 the mixture is better than any single group (Nguyen et al., 2022).
    """
    return np.asarray(mixed - alone.min(axis=0))


def exponentiated(proportions: Vector, score: Vector, rate: float) -> Vector:
    """Return proportions times exp(rate * score), normalised (Kivinen and Warmuth, 1997).

    Computed in logarithms, so no score overflows; a share of 0 stays 0, and adding one number to all
    scores changes nothing. Scores must be finite.
    """
    if not np.isfinite(score).all():
        raise ValueError(f"scores must be finite, but got {score.tolist()}.")
    held = proportions > 0
    logs = np.where(held, np.log(proportions, where=held, out=np.zeros_like(proportions)), -np.inf)
    logs[held] += rate * score[held]
    shares = np.exp(logs - logs.max())
    return np.asarray(shares / shares.sum())


def bounded(proportions: Vector, least: Vector | float, most: Vector | float) -> Vector:
    """Return the mixture of smallest KL divergence from `proportions` that lies within the bounds.

    It is clip(scale * proportions, least, most) with the scale at which the sum is 1. Groups with a share
    of 0 get more than their least only if the others' caps leave room. Raises ValueError where no mixture
    fits.
    """
    low = np.broadcast_to(np.asarray(least, dtype=np.float64), proportions.shape)
    high = np.minimum(np.broadcast_to(np.asarray(most, dtype=np.float64), proportions.shape), 1.0)
    if (low > high + 1e-12).any() or low.sum() > 1 + 1e-9 or high.sum() < 1 - 1e-9:
        raise ValueError(
            f"a mixture of {len(proportions)} groups must fit between its floors, which sum to "
            f"{low.sum():.6g}, and its caps, which sum to {high.sum():.6g}: lower the floor or raise the caps."
        )
    if abs(proportions.sum() - 1) <= 1e-12 and (low <= proportions).all() and (proportions <= high).all():
        return proportions.copy()
    held = proportions > 1e-100  # below, a bound divided by it may overflow
    full = np.where(held, high, low)
    if full.sum() < 1:  # groups of share 0 must take up the rest, in proportion to their room
        room = np.where(held, 0.0, high - low)
        return np.asarray(full + room * min(1.0, (1 - full.sum()) / max(float(room.sum()), 1e-300)))
    return _clipped(proportions, low, high, held)


def _clipped(proportions: Vector, low: Vector, high: Vector, held: NDArray[np.bool_]) -> Vector:
    """Return clip(scale * proportions, low, high) with sum 1, which grows with the scale in straight pieces."""

    def at(scale: float) -> Vector:
        return np.asarray(np.clip(scale * proportions, low, high))

    turns = np.unique(np.concatenate([low[held] / proportions[held], high[held] / proportions[held]]))
    turns = turns[np.isfinite(turns)]
    sums = np.array([at(turn).sum() for turn in turns])
    place = int(np.searchsorted(sums, 1.0))
    if place == 0:
        return at(float(turns[0]))
    if place == len(turns):
        return at(float(turns[-1]))
    before, after = turns[place - 1], turns[place]
    gained = sums[place] - sums[place - 1]
    scale = before + (after - before) * (1 - sums[place - 1]) / gained
    return at(float(scale))


def apportion(proportions: Vector, batch: int, debt: Vector) -> tuple[Counts, Vector]:
    """Return whole rows per group that sum to `batch`, and the debt to carry to the next batch."""
    due = proportions * batch + debt
    counts = np.array(cut_batch(proportions.tolist(), due.tolist(), batch), dtype=np.int64)
    return counts, due - counts


def cut_batch(proportions: Sequence[float], due: Sequence[float], batch: int) -> list[int]:
    """Return whole rows per group that sum to `batch`; `due` has the shares and what earlier batches still owe.

    Each group first gets the whole part of what it is due. The rows left over go to the earliest deadlines; a
    group's deadline is how many more rows can go elsewhere before it is owed more than one. With fixed
    proportions a group's running total then stays within one row of its due after every batch, as for unit
    jobs served by their deadlines (Steiner and Yeomans, 1993); by the largest remainder it does not.
    """
    # plain lists are used because cutting a batch of a few dozen rows must not cost more than copying it
    counts = [int(rows) if rows > 0 else 0 for rows in due]
    missing = batch - sum(counts)
    if not missing:
        return counts
    slack = [
        # the deadline, in rows
        (1 - owed) / share if (owed := rows - count) > 0 and share > 0 else math.inf
        for rows, count, share in zip(due, counts, proportions, strict=True)
    ]
    # among equal deadlines, such as those of groups of share 0, the group that is owed most comes first
    order = sorted(range(len(due)), key=lambda group: (slack[group], counts[group] - due[group]))
    while missing > 0:
        for group in order[:missing]:
            counts[group] += 1
        missing = batch - sum(counts)
    for group in reversed(order):
        taken = min(counts[group], -missing)
        if taken > 0:
            counts[group] -= taken
            missing += taken
    return counts


def counts_within(counts: Counts, left: Counts) -> Counts:
    """Return counts of the same sum that exceed what is left nowhere: the surplus goes where most is left.

    Groups that have no row in `counts` get some only if the others have no room.
    """
    kept = np.minimum(counts, left)
    surplus = int(counts.sum() - kept.sum())
    if not surplus:
        return kept
    room = np.where(counts > 0, left - kept, 0)
    if surplus > room.sum():
        kept, surplus, room = kept + room, surplus - int(room.sum()), np.where(counts > 0, 0, left - kept)
    if surplus > room.sum():
        raise ValueError(f"{counts.sum()} rows were asked for, but only {left.sum()} are left.")
    more, _ = apportion(room / room.sum(), surplus, np.zeros(len(room)))
    return (
        np.asarray(kept + np.minimum(more, room)) if (more <= room).all() else counts_within(kept + more, left)
    )


def dealt(counts: Counts, steps: int) -> Counts:
    """Deal a visit's rows out to its batches: `(steps, groups)`, all batches of one size.

    Each group's rows are spread evenly over the visit. The sums over steps are `counts` exactly, which
    must be a multiple of `steps` in total; a batch may be smaller than the number of groups.
    """
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts.tolist()] or [np.zeros(0)])
    groups = np.repeat(np.arange(len(counts)), counts)[np.argsort(places, kind="stable")]
    batches = groups.reshape(steps, -1) if steps else np.zeros((0, 0), dtype=np.int64)
    return np.asarray((batches[:, :, None] == np.arange(len(counts))).sum(axis=1), dtype=np.int64)
