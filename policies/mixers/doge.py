"""DoGE: upweigh the groups whose gradients point where the targets' do."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.mixers.mixer import ALIGNMENT, Groups, Measurement
from shoal.policies.mixers.proxy import ProxyPhase
from shoal.policies.mixing import apportion, dealt


@dataclass(frozen=True)
class DoGE(ProxyPhase):
    """Mirror descent on inner products of gradients (Fan et al., 2024).

    A group's score is its gradient's inner product with the sum of the targets' gradients. As in the
    published code, it is divided by the mean norm of the groups' gradients and kept in [least, most], so
    opposed gradients count as 0. `own` keeps the product of a group with itself where the targets are the
    groups; the published code drops it. `rate` stands for the paper's learning rate / mu, which follows
    the learning rate's schedule there.

    A product is measured where a batch has rows of both groups, and stands until both are in a batch again. A
    pair that has not been in any batch yet counts as the mean of the group's other pairs.
    """

    rate: float = 0.05
    smoothing: float = 0.0  # share of equal weights that is mixed in after each update
    own: bool = False
    by_norm: bool = True  # divide products by the mean norm of the groups' gradients
    least: float = 0.0  # smaller scores count as this
    most: float = 5.0  # larger scores count as this
    signals: ClassVar[frozenset[str]] = frozenset({ALIGNMENT})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.least < self.most:
            raise ValueError(f"least must be below most, but got {self.least}, {self.most}.")

    def check(self, groups: Groups) -> None:
        super().check(groups)
        if groups.targets == groups.names and not self._all_meet(groups):
            raise ValueError(
                f"each pair of {groups.count} groups must come together in some batch, since their gradients "
                f"are multiplied, but batches of {groups.batch} rows, dealt out over {self.every} steps, keep "
                f"some apart: give larger batches (of {groups.count} rows for certain) or another every."
            )

    def _all_meet(self, groups: Groups) -> bool:
        """Say whether each pair of groups is in some batch of the proxy, as far as is looked."""
        together = np.eye(groups.count, dtype=bool)
        uniform, debt = np.full(groups.count, 1 / groups.count), np.zeros(groups.count)
        left = min(self.proxy_steps(groups), self.every * groups.count**2)
        while left > 0 and not together.all():
            steps = min(self.every, left)
            counts, debt = apportion(uniform, steps * groups.batch, debt)
            seen = dealt(counts, steps) > 0
            together |= (seen[:, :, None] & seen[:, None, :]).any(axis=0)
            left -= steps
        return bool(together.all())

    def measured(self, groups: Groups, measurement: Measurement) -> Vector:
        assert measurement.alignment is not None
        aligned = np.array(measurement.alignment, dtype=np.float64)  # (steps, groups, targets)
        if not self.by_norm:
            return aligned
        assert measurement.norms is not None, "alignment comes with the norms of the gradients"
        told = np.isfinite(measurement.norms)
        sums = np.where(told, measurement.norms, 0.0).sum(axis=1)
        norms = np.where(told.any(axis=1), sums / np.maximum(told.sum(axis=1), 1), np.nan)
        return np.asarray(aligned / (norms[:, None, None] + 1e-6))

    def scores(self, groups: Groups, known: Vector) -> Vector:
        counted = np.full(known.shape, True)
        if not self.own and groups.targets == groups.names:
            np.fill_diagonal(counted, False)
        told = counted & np.isfinite(known)
        sums, pairs = np.where(told, known, 0.0).sum(axis=1), told.sum(axis=1)
        found = np.where(pairs > 0, sums * counted.sum(axis=1) / np.maximum(pairs, 1), np.nan)
        return np.asarray(np.clip(found, self.least, self.most))  # NaN stays NaN
