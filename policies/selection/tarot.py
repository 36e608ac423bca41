"""TAROT: the rows that carry the target's gradients, by optimal transport (Feng et al., 2024)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.sampling.chance import keys
from shoal.policies.selection.interface import Budget, Candidates, Selected
from shoal.policies.selection.picking import best_rows, quotas
from shoal.policies.selection.quantise import unit_rows
from shoal.policies.selection.transport import transport

Matrix = NDArray[np.float64]
BLOCK = 4096  # rows whose similarities to the target are in memory at once


@dataclass(frozen=True)
class Tarot:
    """Choose the nearest rows of each target row, by cosine of whitened vectors: `sketch`es of gradients.

    `vectors` names another column, such as `embedding`, where likeness rather than gradients is to decide.

    With a budget, first every target's nearest row, then every target's second, and so on; of the layer that
    does not fit whole, those rows that bring the chosen nearest to the target. Without one, the number of rows
    is found: on `folds` parts of the target, layers are added while the transport from the chosen to the other
    parts falls, and the union over the parts is chosen. `repeat` then gives copies up to the budget: each row
    in proportion to the target rows that it is the nearest chosen one of, which needs a budget. At most
    `depth` layers are looked at. The ridge is a share of the features' mean variance.
    """

    folds: int = 10
    depth: int = 2000
    smoothing: float = 0.01  # entropy in the transport; larger is quicker, and spreads its weights wider
    ridge: float = 1e-3  # share of the mean variance of the features that is added to each
    repeat: bool = False
    vectors: str = "sketch"  # the column of vectors that pool and target have

    def __post_init__(self) -> None:
        if not self.folds >= 2:
            raise ValueError(f"folds must be at least 2, but got {self.folds}.")
        if not self.depth >= 1:
            raise ValueError(f"depth must be at least 1, but got {self.depth}.")
        if not (self.smoothing > 0 and self.ridge > 0):
            raise ValueError(f"smoothing and ridge must be above 0, but got {self.smoothing} and {self.ridge}.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.vectors})

    @property
    def aims(self) -> frozenset[str]:
        return frozenset({self.vectors})

    @property
    def budget(self) -> Budget:
        return "needed" if self.repeat else "optional"

    def select(self, pool: Candidates) -> Selected:
        rows, target = whitened(
            pool.columns[self.vectors].astype(np.float64),
            pool.targets[self.vectors].astype(np.float64),
            self.ridge,
        )
        ranked, near = nearest_rows(rows, target, min(self.depth, len(rows)))
        layer = np.full(len(rows), self.depth + 1)
        for place in range(ranked.shape[1] - 1, -1, -1):
            layer[ranked[:, place]] = place + 1
        if pool.budget is None or self.repeat:
            chosen = self.found_rows(rows, target, ranked, near, pool.seed)
        else:
            chosen = self.first_rows(rows, target, layer, pool.budget)
        copies = chosen.astype(np.int32)
        if self.repeat:
            copies[chosen] = copies_by_use(rows[chosen], target, pool.goal)
        best = np.full(len(rows), -np.inf)
        np.maximum.at(best, ranked, near)
        reasons = ("far from the target", "near the target")
        facts = {"ratio": float(chosen.mean()), "layers": float(layer[chosen].max(initial=0))}
        margin = np.where(np.isfinite(best), best, np.nan)
        return Selected(copies, margin, chosen.astype(np.int16), reasons, facts)

    def first_rows(
        self, rows: Matrix, target: Matrix, layer: NDArray[np.int64], budget: int
    ) -> NDArray[np.bool_]:
        """Return the rows of the first layers that fit, and the best of the next."""
        counts = np.cumsum(np.bincount(layer, minlength=self.depth + 2))
        whole = int(np.searchsorted(counts, budget, side="right")) - 1
        chosen = layer <= whole
        rest = np.flatnonzero(layer == whole + 1)
        missing = budget - int(chosen.sum())
        if missing:
            # moving more mass to a row raises the cost by its potential
            found = transport(unit_distances(rows[rest], target), self.smoothing)
            chosen[rest[best_rows(-found.first, missing)]] = True
        return chosen

    def found_rows(
        self, rows: Matrix, target: Matrix, ranked: NDArray[np.int64], near: Matrix, seed: int
    ) -> NDArray[np.bool_]:
        """Return the union of what each part of the target chooses against the others."""
        chosen = np.zeros(len(rows), bool)
        order = np.argsort(keys(seed, "tarot", 0, np.arange(len(target))), kind="stable")
        for part in np.array_split(order, min(self.folds, len(target))):
            rest = np.setdiff1d(order, part) if len(part) < len(order) else order
            chosen |= self._grown(rows, target[rest], ranked[part], near[part])
        return chosen

    def _grown(
        self, rows: Matrix, against: Matrix, ranked: NDArray[np.int64], near: Matrix
    ) -> NDArray[np.bool_]:
        """Add layers while the transport falls; return the set before it rose."""
        chosen, least = np.zeros(len(rows), bool), np.inf
        for place in range(ranked.shape[1]):
            more = chosen.copy()
            more[ranked[near[:, place] > 0, place]] = True
            if (more == chosen).all():
                if (near[:, place] <= 0).all():
                    break
                continue
            cost = transport(unit_distances(rows[more], against), self.smoothing).cost
            if cost > least:
                break
            chosen, least = more, cost
        return chosen


def whitened(rows: Matrix, target: Matrix, ridge: float) -> tuple[Matrix, Matrix]:
    """Return both with one mean of 0 and one covariance of 1, then each row at length 1.

    With the covariance `L L'` a row x becomes `inv(L) x`: rows are columns there, so the whole is solved for
    its transpose. `ridge` times the mean variance is added to the variances.
    """
    white = whiten(np.concatenate([rows, target]), ridge)
    return unit_rows(white[: len(rows)]), unit_rows(white[len(rows) :])


def whiten(values: Matrix, ridge: float) -> Matrix:
    """Return values whose covariance is the unit matrix, but for the ridge."""
    centred = values - values.mean(axis=0)
    found = centred.T @ centred / max(len(values) - 1, 1)
    width = len(found)
    variance = max(float(np.trace(found)) / width, 1e-300)
    factor = np.linalg.cholesky(found + ridge * variance * np.eye(width))
    return np.asarray(np.linalg.solve(factor, centred.T).T)


def nearest_rows(rows: Matrix, target: Matrix, depth: int) -> tuple[NDArray[np.int64], Matrix]:
    """Return the nearest rows of each target row and their cosines, `(targets, depth)`, nearest first."""
    places = np.empty((len(target), 0), np.int64)
    cosines = np.empty((len(target), 0))
    for start in range(0, len(rows), BLOCK):
        block = target @ rows[start : start + BLOCK].T
        cosines = np.concatenate([cosines, block], axis=1)
        own = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        places = np.concatenate([places, own], axis=1)
        # a stable sort: of equal cosines the first row comes first
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :depth]
        cosines, places = np.take_along_axis(cosines, order, 1), np.take_along_axis(places, order, 1)
    return places, cosines


def unit_distances(rows: Matrix, target: Matrix) -> Matrix:
    """Return the distance between unit rows, `(rows, targets)`."""
    return np.asarray(np.sqrt(np.maximum(2 - 2 * rows @ target.T, 0.0)))


def copies_by_use(chosen: Matrix, target: Matrix, total: int) -> NDArray[np.int32]:
    """Return copies that sum to `total`, in proportion to the targets that a row is the nearest one of.

    Every row has one at least, so `total` must be no less than the rows.
    """
    if total < len(chosen):
        raise ValueError(f"the budget must be at least the {len(chosen)} rows that were found, but is {total}.")
    uses: Vector = np.bincount((target @ chosen.T).argmax(axis=1), minlength=len(chosen)).astype(np.float64)
    more = quotas(uses, total - len(chosen), np.full(len(chosen), total))
    return np.asarray(1 + more, np.int32)
