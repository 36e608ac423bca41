"""Whether averages of models, each trained on one group, may stand for models trained on mixtures."""

from typing import NamedTuple

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.ranks import spearman

FEWEST_MIXTURES = 4  # with fewer trained mixtures a rank correlation says nothing


class Trust(NamedTuple):
    """How far scores of merged models agree with those of trained ones (Na et al., 2024)."""

    correlation: float  # Spearman's, over the mixtures that were trained; NaN below four
    shift: float  # mean of merged - trained loss: averages predict ranks, not levels
    barrier: bool  # the plain average is worse on every group than the start was


def trust(merged: Vector, trained: Vector, start: Vector, average: Vector) -> Trust:
    """Compare the losses of a few mixtures, (mixtures,), as merged and as truly trained.

    `start` and `average` (groups,) are the losses of the shared start and of the equal average of all groups'
    models on each group. Where the average is worse than the start everywhere, the models have parted too
    far for any average to mean something: train them for fewer steps.
    """
    if merged.shape != trained.shape:
        raise ValueError(
            f"merged and trained losses must be of the same mixtures, but got {merged.shape}, {trained.shape}."
        )
    correlation = spearman(merged, trained) if len(merged) >= FEWEST_MIXTURES else float("nan")
    return Trust(correlation, float((merged - trained).mean()), bool((average > start).all()))


def ranked(losses: Vector, objective: Vector | None = None) -> list[int]:
    """Return the places of mixtures, best first, by their losses (mixtures, targets)."""
    weights = np.full(losses.shape[1], 1 / losses.shape[1]) if objective is None else objective
    return np.argsort(losses @ weights, kind="stable").tolist()
