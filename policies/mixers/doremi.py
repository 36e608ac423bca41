"""DoReMi: upweigh the groups whose loss is furthest above a reference model's."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.mixers.mixer import EXCESS, Groups, Measurement
from shoal.policies.mixers.proxy import ProxyPhase


@dataclass(frozen=True)
class DoReMi(ProxyPhase):
    """Group DRO on the loss in excess of a reference model (Xie et al., 2023).

    The excess is clipped at 0 for each token, then averaged: clipping a group's mean instead is another
    algorithm. The reference is a run of its own, which the method costs besides.
    """

    signals: ClassVar[frozenset[str]] = frozenset({EXCESS})

    def measured(self, groups: Groups, measurement: Measurement) -> Vector:
        assert measurement.excess is not None
        return measurement.excess

    def scores(self, groups: Groups, known: Vector) -> Vector:
        return known


def clipped_excess(
    losses: NDArray[np.floating], references: NDArray[np.floating], of: NDArray[np.int64], groups: int
) -> Vector:
    """Return each group's mean over tokens of max(0, loss - reference); NaN of a group without a token.

    Losses and references are (rows, tokens), `of` (rows,) is the group of each row. A token whose reference is
    NaN does not count, such as one of a prompt.
    """
    counts = ~np.isnan(references)
    excess = np.where(counts, np.maximum(losses - references, 0.0), 0.0)
    tokens = np.bincount(of, weights=counts.sum(axis=1), minlength=groups)
    sums = np.bincount(of, weights=excess.sum(axis=1), minlength=groups)
    return np.where(tokens > 0, sums / np.maximum(tokens, 1), np.nan)
