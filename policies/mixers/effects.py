"""What one group's rows do to the losses: estimated from short probes during training, with errors.

Symbols of Chen et al., 2024: A (targets, groups) is by how much a target's loss falls, in nats a step, per
unit of a group's share; a probe trains at a smoothed one-hot mixture, a column of P.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policies.mixing import Vector

Drops = tuple[Vector, ...]  # of each target, how far each fixed sequence's loss fell in a probe


class Effects(NamedTuple):
    matrix: Vector  # (targets, groups) A
    errors: Vector  # (targets, groups) standard errors of its entries
    pull: Vector  # (groups,) objective-weighted column sums less their mean: the drift common to all is gone
    pull_errors: Vector  # (groups,) standard errors of the pull


def smoothed_one_hot(groups: int, smoothing: float) -> Vector:
    """Return P (groups, groups), a probe a column: (1 - smoothing) I + smoothing / groups."""
    return np.asarray((1 - smoothing) * np.eye(groups) + smoothing / groups)


def learn_effects(
    mixtures: Vector, drops: Sequence[Drops], steps: int, objective: Vector, sweeps: int
) -> Effects | None:
    """Solve drops = steps * A mixture for A (LearnParams of Chen et al., 2024), or return None.

    `mixtures` (probes, groups) are the realised ones, sweep after sweep, each of as many probes as groups.
    A drop of a sequence is paired: the loss of the same sequence before and after the probe. Two kinds of
    error are added: that of having these sequences, from the spread over sequences of the mean over
    sweeps, and that of having trained on these rows, from the spread over sweeps. Kinds that cannot be
    seen (one sequence, one sweep) count as 0; if neither can, the errors are NaN. None: some loss is not
    finite, or the realised mixtures do not tell the groups apart.
    """
    groups = mixtures.shape[1]
    table = np.array([np.concatenate(drop) for drop in drops]) / steps  # (probes, all sequences)
    if not np.isfinite(table).all() or np.linalg.matrix_rank(mixtures) < groups:
        return None
    by_sequence = np.linalg.pinv(mixtures) @ table  # (groups, all sequences)
    ends = np.cumsum([len(part) for part in drops[0]])[:-1]
    parts = np.split(by_sequence, ends, axis=1)
    matrix = np.array([part.mean(axis=1) for part in parts])
    over_rows = _sweep_estimates(mixtures, table, ends, sweeps)  # (sweeps, targets, groups)
    pulls = np.einsum("t,stg->sg", objective, _centred(over_rows))
    centred = [weight * _centred(part.T) for weight, part in zip(objective, parts, strict=True)]
    return Effects(
        matrix,
        _both(np.array([_error(part.T) for part in parts]), _error(over_rows)),
        objective @ _centred(matrix),
        _both(np.sqrt(sum(_error(part) ** 2 for part in centred)), _error(pulls)),
    )


def _sweep_estimates(mixtures: Vector, table: Vector, ends: NDArray[np.int64], sweeps: int) -> Vector:
    """Return A as each sweep alone estimates it: `(sweeps, targets, groups)`."""
    found = []
    for probes, fell in zip(np.split(mixtures, sweeps), np.split(table, sweeps), strict=True):
        means = np.array([part.mean(axis=1) for part in np.split(fell, ends, axis=1)])  # (targets, probes)
        found.append(means @ np.linalg.pinv(probes).T)
    return np.array(found)


def _centred(values: Vector) -> Vector:
    return np.asarray(values - values.mean(axis=-1, keepdims=True))


def _error(values: Vector) -> Vector:
    """Return the standard error of the mean over the first axis; NaN of one value."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def _both(first: Vector, second: Vector) -> Vector:
    unseen = np.isnan(first) & np.isnan(second)
    return np.where(unseen, np.nan, np.sqrt(np.nan_to_num(first) ** 2 + np.nan_to_num(second) ** 2))


def scaled(effects: Effects, scale: str) -> float:
    """Return what a step in the direction of the pull is divided by; 0 where all effects are alike.

    `total` is the published one: the sum of A less its smallest entry if that is negative, so one wildly
    negative entry freezes the proportions. `median` is as large where all entries are alike, and robust:
    the number of entries times the median of |A|. `none` is 1: the step is in nats.
    """
    matrix = effects.matrix
    if scale == "none":
        return 1.0
    if np.ptp(effects.pull) <= 1e-12 * np.abs(matrix).max():
        return 0.0
    if scale == "total":
        return float(matrix.sum() - matrix.size * min(float(matrix.min()), 0.0))
    return float(matrix.size * np.median(np.abs(matrix)))


def spread(pull: Vector, errors: Vector) -> float:
    """Return the root mean square pull in units of its standard error; for two groups it is |t|."""
    noise = float(np.sqrt((errors**2).mean()))
    size = float(np.sqrt((pull**2).mean()))
    if size == 0:
        return 0.0
    return size / noise if noise > 0 else np.inf
