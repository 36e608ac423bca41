"""Labels of rows of which only bags' counts are known, by belief propagation (Havaldar et al., 2024).

The chance of all labels y, of 0 or 1, is taken to be proportional to

    exp(-bag_weight sum_bags (sum of y - count)^2 - edge_weight sum_edges likeness (y_i - y_j)^2).

Sums and products of messages along bags and edges give each row's own chance. It is exact without loops.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.bag_counts import count_messages
from shoal.policies.selection.quantise import unit_rows

ROWS_AT_ONCE = 1024  # rows whose cosines with all others are in memory at once


class Edges(NamedTuple):
    """Pairs of rows that are alike."""

    pairs: NDArray[np.int64]  # (edges, 2), each pair once
    likeness: Vector  # (edges,), from 0 to 1


class Beliefs(NamedTuple):
    """What was found about rows."""

    chance: Vector  # (rows,), of the label 1
    gaps: Vector  # (bags,): the sum of the rows' chances less the count
    passes: int
    change: float  # by which the last pass moved a chance at most


@dataclass(frozen=True)
class BagLabels:
    """Pass messages between rows, bags and neighbours (Havaldar et al., 2024: belief propagation).

    The graph has loops, so the chances need not settle, and need not be right: look at `change`, and whether
    the chances of a bag sum to its count (`gaps`).
    """

    bag_weight: float = 10.0  # cost of one label too many or too few in a bag; their lambda_b
    # cost of two alike rows of other labels; their lambda_s is 10, at which bags here do not keep their counts
    edge_weight: float = 2.0
    neighbours: int = 5  # nearest rows, by cosine, to which each row has an edge
    reach: float | None = None  # distance at which likeness is 1/e; else the mean distance of neighbours
    passes: int = 100  # the most
    damping: float = 0.5  # share of the last messages in the next
    tolerance: float = 1e-4  # the passes end when no chance moves by more

    def __post_init__(self) -> None:
        for name in ("bag_weight", "edge_weight", "neighbours", "tolerance"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be at least 0 and finite, but got {getattr(self, name)}.")
        if self.reach is not None and not self.reach > 0:
            raise ValueError(f"reach must be above 0, but got {self.reach}.")
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, but got {self.passes}.")
        if not 0 <= self.damping < 1:
            raise ValueError(f"damping must be at least 0 and below 1, but got {self.damping}.")

    def edges(self, features: Vector) -> Edges:
        """Return the edges of rows `(rows, features)`: likeness is exp(-distance / reach) (Matern 1/2).

        Features are centred and brought to one deviation first.
        """
        spread = features.std(axis=0)
        scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        pairs = nearest_pairs(scaled, self.neighbours)
        ends = scaled[pairs]
        distance = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)
        reach = self.reach or (float(distance.mean()) if len(distance) else 0.0) or 1.0
        return Edges(pairs, np.exp(-distance / reach))

    def beliefs(self, bag: NDArray[np.int64], counts: Vector, edges: Edges) -> Beliefs:
        """Return each row's chance of the label 1.

        `bag` `(rows,)` has the number of each row's bag, -1 for none; `counts` `(bags,)` how many rows of each
        have the label 1, which need not be whole. Raises ValueError for a count that no bag of its size has.
        """
        checked_counts(bag, counts)
        one, other = edges.pairs.T
        cost = self.edge_weight * edges.likeness
        sent = np.zeros((2, len(cost)))  # log-odds, to the second and to the first row of each pair
        held = np.zeros(len(bag))  # log-odds that bags give
        chance, change, done = np.full(len(bag), 0.5), np.inf, 0
        while done < self.passes and change > self.tolerance:
            near = sum_at(len(bag), other, sent[0]) + sum_at(len(bag), one, sent[1])
            told = count_messages(near, bag, counts, self.bag_weight)
            # the first pass has nothing to keep
            held = told if not done else self.damping * held + (1 - self.damping) * told
            odds = near + held
            new = np.stack([through(odds[one] - sent[1], cost), through(odds[other] - sent[0], cost)])
            sent = self.damping * sent + (1 - self.damping) * new
            found = 1 / (1 + np.exp(-np.clip(odds, -700, 700)))
            chance, change, done = found, float(np.abs(found - chance).max(initial=0.0)), done + 1
        return Beliefs(chance, sum_at(len(counts), bag, chance) - counts, done, change)


def through(odds: Vector, cost: Vector) -> Vector:
    """Return the log-odds that an edge passes on, where unlike labels cost `cost` nats."""
    return np.asarray(np.logaddexp(odds, -cost) - np.logaddexp(odds - cost, 0.0))


def sum_at(length: int, places: NDArray[np.int64], values: Vector) -> Vector:
    """Return the sum of the values at each place; the place -1 is none."""
    there = places >= 0
    return np.asarray(np.bincount(places[there], values[there], minlength=length), np.float64)


def checked_counts(bag: NDArray[np.int64], counts: Vector) -> None:
    sizes = np.bincount(bag[bag >= 0], minlength=len(counts))
    if len(sizes) > len(counts):
        raise ValueError(f"each bag must have a count, but there are {len(counts)} for bag {bag.max()}.")
    # written so that a count that is no number is odd too
    odd = ~((counts >= 0) & (counts <= sizes))
    if odd.any():
        first = int(odd.argmax())
        raise ValueError(
            f"a count must be from 0 to the rows of its bag, but bag {first} has {sizes[first]} rows and the "
            f"count {counts[first]:.6g}."
        )


def nearest_pairs(rows: Vector, count: int) -> NDArray[np.int64]:
    """Return pairs of rows, `(pairs, 2)`, of which one is among the other's `count` nearest by cosine."""
    unit, count = unit_rows(rows), min(count, len(rows) - 1)
    if count < 1:
        return np.zeros((0, 2), np.int64)
    found = []
    for start in range(0, len(unit), ROWS_AT_ONCE):
        cosines = unit[start : start + ROWS_AT_ONCE] @ unit.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -np.inf
        near = np.argpartition(cosines, -count, axis=1)[:, -count:]
        found.append(np.stack([np.repeat(start + own, count), near.ravel()], axis=1))
    return np.asarray(np.unique(np.sort(np.concatenate(found), axis=1), axis=0), np.int64)
