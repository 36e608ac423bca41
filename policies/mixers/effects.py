"""What one group's rows do to the losses: estimated from short probes during training, with errors.

Symbols of Chen et al., 2024: A (targets, groups) is by how much a target's loss falls, in nats a step, per
unit of a group's share; a probe trains at a smoothed one-hot mixture, a column of P.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.ranks import spearman
from shoal.policies.statistics import incomplete_beta

Drops = tuple[Vector, ...]  # a vector for each target: how far the loss of each fixed sequence fell in a probe


class Effects(NamedTuple):
    matrix: Vector  # (targets, groups) A
    errors: Vector  # (targets, groups) standard errors of its entries
    pull: Vector  # (groups,) objective-weighted column sums less their mean: the drift common to all is gone
    pull_errors: Vector  # (groups,) standard errors of the pull
    freedom: float  # degrees of freedom of the pull's errors together


def smoothed_one_hot(groups: int, smoothing: float) -> Vector:
    """Return P (groups, groups), a probe a column: (1 - smoothing) I + smoothing / groups."""
    return np.asarray((1 - smoothing) * np.eye(groups) + smoothing / groups)


def learn_effects(
    mixtures: Vector, drops: Sequence[Drops], steps: int, objective: Vector, sweeps: int
) -> Effects | None:
    """Solve drops = steps * A mixture for A (LearnParams of Chen et al., 2024), or return None.

    `mixtures` (probes, groups) are the realised ones, sweep after sweep, each of as many probes as groups.
    A drop of a sequence is paired: the loss of the same sequence before and after the probe. The errors are
    those of having these sequences and of having trained on these rows, told apart by the spread over
    sequences and over sweeps; where one of the two cannot be seen (one sequence, one sweep) they are NaN.
    None: some loss is not finite, or the realised mixtures do not tell the groups apart.
    """
    groups = mixtures.shape[1]
    table = np.array([np.concatenate(drop) for drop in drops]) / steps  # (probes, all sequences)
    if not np.isfinite(table).all() or np.linalg.matrix_rank(mixtures) < groups:
        return None
    ends = np.cumsum([len(part) for part in drops[0]])[:-1]
    matrix = np.array([part.mean(axis=1) for part in np.split(np.linalg.pinv(mixtures) @ table, ends, axis=1)])
    alone = np.array(  # A of each sequence as each sweep alone gives it: (sweeps, all sequences, groups)
        [
            (np.linalg.pinv(probes) @ fell).T
            for probes, fell in zip(np.split(mixtures, sweeps), np.split(table, sweeps), strict=True)
        ]
    )
    parts = np.split(alone, ends, axis=1)
    means = np.array([part.mean(axis=1) for part in parts])  # (targets, sweeps, groups)
    entries = _Variances(
        np.array([_over(part.mean(axis=0)) for part in parts]),
        np.array([_over(mean) for mean in means]),
        np.array([_over_both(part) for part in parts]),
    )
    centred = [weight * _centred(part) for weight, part in zip(objective, parts, strict=True)]
    pulls = _Variances(
        np.sum([_over(part.mean(axis=0)) for part in centred], axis=0),
        _over(_centred(np.tensordot(objective, means, 1))),
        np.sum([_over_both(part) for part in centred], axis=0),
    )
    seen = min(map(len, drops[0]))
    freedom = pulls.freedom((seen - 1) * (groups - 1), (sweeps - 1) * (groups - 1))
    return Effects(
        matrix, np.sqrt(entries.total()), objective @ _centred(matrix), np.sqrt(pulls.total()), freedom
    )


class _Variances(NamedTuple):
    """Variances of a mean over a table of sequences and sweeps; NaN where there are too few of them."""

    sequences: Vector
    sweeps: Vector
    both: Vector  # their interaction; both other variances contain it, so it is subtracted once

    def total(self) -> Vector:
        return np.asarray(self.sequences + np.maximum(self.sweeps - np.nan_to_num(self.both), 0.0))

    def freedom(self, sequences: float, sweeps: float) -> float:
        """Return the degrees of freedom of the total's mean (Satterthwaite, 1946), given those of its parts."""
        total = float(np.mean(self.total()))
        if not total > 0:  # nothing varies but by rounding, or the variance is NaN
            return math.inf
        parts = ((float(np.mean(self.sequences)), sequences), (float(np.mean(self.sweeps)), sweeps))
        # relative to the total: squares of tiny variances would be 0
        doubt = sum(min(part / total, 1e6) ** 2 / of for part, of in parts if of)
        return 1 / doubt if doubt > 0 else math.inf


def _centred(values: Vector) -> Vector:
    return np.asarray(values - values.mean(axis=-1, keepdims=True))


def _over(values: Vector) -> Vector:
    """Return the variance of the mean over the first axis; NaN of one value."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.var(axis=0, ddof=1) / len(values))


def _over_both(values: Vector) -> Vector:
    """Return the variance of the mean (sweeps, sequences, ...) that neither axis alone explains, or NaN."""
    sweeps, sequences = values.shape[:2]
    if sweeps < 2 or sequences < 2:
        return np.full(values.shape[2:], np.nan)
    alone = values.mean(axis=0, keepdims=True) + values.mean(axis=1, keepdims=True) - values.mean(axis=(0, 1))
    squares = ((values - alone) ** 2).sum(axis=(0, 1)) / ((sweeps - 1) * (sequences - 1))
    return np.asarray(squares / (sweeps * sequences))


def pull_scale(effects: Effects, scale: str, objective: Vector) -> float:
    """Return what a step in the direction of the pull is divided by; 0 where all effects are alike.

    A is weighed by the objective, and only targets that count are looked at: others change no step.
    `total` is the published one: the sum of A less its smallest entry if that is negative, so one wildly
    negative entry freezes the proportions. `median` is as large where all entries are alike, and robust:
    the number of entries times the median of |A|, or their mean where most are 0. `column` is the mean
    over groups of the largest |A| of each, mostly what a group does to itself: a rate then means the same
    whatever the number of groups. `none` is 1: the step is in nats.
    """
    if scale == "none":
        return 1.0
    matrix = (objective[:, None] * effects.matrix)[objective > 0]
    sizes = np.abs(matrix)
    if np.ptp(effects.pull) <= 1e-12 * sizes.max():
        return 0.0
    if scale == "total":
        return float(matrix.sum() - matrix.size * min(float(matrix.min()), 0.0))
    if scale == "column":
        return float(sizes.max(axis=0).mean())
    median, mean = float(np.median(sizes)), float(sizes.mean())
    return matrix.size * (median if median > 1e-9 * mean else mean)


def similarity(first: Vector, second: Vector) -> float:
    """Return how alike two A are by their column sums: half cosine, half Spearman (Chen et al., 2024).

    A coarse measure: the cosine of positive sums is always near 1, and few groups have few rankings. See
    also `agreement`.
    """
    one, other = first.sum(axis=0), second.sum(axis=0)
    sizes = float(np.linalg.norm(one) * np.linalg.norm(other))
    cosine = float(one @ other) / sizes if sizes else np.nan
    return 0.5 * cosine + 0.5 * spearman(one, other)


def agreement(measured: Vector, truth: Vector) -> tuple[float, float]:
    """Return the relative error of the row-centred entries and the share of them that have the right sign.

    Centred, because a constant in a row moves no proportion.
    """
    one, other = _centred(measured), _centred(truth)
    size = float(np.linalg.norm(other))
    error = float(np.linalg.norm(one - other)) / size if size else np.nan
    return error, float((np.sign(one) == np.sign(other)).mean())


def pull_spread(pull: Vector, errors: Vector) -> float:
    """Return the root mean square pull in standard errors, NaN without these; of two groups it is |t|."""
    noise = float(np.sqrt((errors**2).mean()))
    size = float(np.sqrt((pull**2).mean()))
    if size == 0 or math.isnan(noise):
        return 0.0 if size == 0 else math.nan
    return size / noise if noise > 0 else math.inf


def by_chance(size: float, groups: int, freedom: float) -> float:
    """Return how probable a spread of `size` or more is where all groups have the same effect (the F test)."""
    if not math.isfinite(size):
        return math.nan if math.isnan(size) else 0.0
    between, within = (groups - 1) / 2, min(freedom, 1e6) / 2
    return incomplete_beta(within, between, within / (within + between * size**2))
