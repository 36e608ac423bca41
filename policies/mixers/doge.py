"""DoGE: upweigh the groups whose gradients point where the targets' do."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies.mixers.mixer import ALIGNMENT, Groups, Outcome
from policies.mixers.proxy import Proxy
from policies.mixing import Vector


@dataclass(frozen=True)
class DoGE(Proxy):
    """Mirror descent on inner products of gradients (Fan et al., 2024).

    A group's score is its gradient's inner product with the sum of the targets' gradients. As in the
    published code, it is divided by the mean norm of the groups' gradients and kept in [least, most], so
    opposed gradients count as 0. `own` keeps the product of a group with itself where the targets are the
    groups; the published code drops it. `rate` stands for the paper's learning rate / mu, which follows
    the learning rate's schedule there.
    """

    rate: float = 0.05
    smoothing: float = 0.0
    own: bool = False
    by_norm: bool = True
    least: float = 0.0
    most: float = 5.0
    signals: ClassVar[frozenset[str]] = frozenset({ALIGNMENT})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.least < self.most:
            raise ValueError(f"least must be below most, but got {self.least}, {self.most}.")

    def scores(self, groups: Groups, outcome: Outcome) -> Vector:
        assert outcome.alignment is not None
        aligned = np.array(outcome.alignment, dtype=np.float64)  # (steps, groups, targets)
        if not self.own and groups.targets == groups.names:
            diagonal = np.arange(groups.count)
            aligned[:, diagonal, diagonal] = np.where(np.isfinite(aligned[:, diagonal, diagonal]), 0.0, np.nan)
        scores = aligned.sum(axis=2)
        if self.by_norm:
            assert outcome.norms is not None, "alignment comes with the norms of the gradients"
            measured = np.isfinite(outcome.norms)
            norms = np.where(measured, outcome.norms, 0.0).sum(axis=1) / np.maximum(measured.sum(axis=1), 1)
            scores = scores / (norms[:, None] + 1e-6)
        return np.asarray(np.clip(scores, self.least, self.most))  # NaN stays NaN
