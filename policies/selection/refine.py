"""Select, refine and seed anew in rounds, as the model's own signals say (Tang et al., 2025).

A policy gives each row an action; the user's function rewrites rows or makes new ones; here is the rest: who
is flagged, which rows the next round has, whose child each new row is, and when the rounds end.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.sampling.interface import Columns, Ids
from shoal.policies.selection.quantise import unit_rows

KEEP, SIMPLIFY, REWRITE, SEED = range(4)
ACTIONS = ("keep", "simplify", "rewrite", "seed")
BLOCK_ROWS = 1024  # rows whose similarities to all others are in memory at once


class Flagged(NamedTuple):
    """The action of each row, `(rows,)`, and who is asked for one row more.

    A row to simplify or rewrite is replaced by its child; `seeds` stay as they are and get one child each. A
    row may be replaced and be a seed too.
    """

    action: NDArray[np.int8]
    seeds: NDArray[np.bool_]

    @property
    def share(self) -> float:
        """The share of rows about which something is to be done."""
        return float(((self.action != KEEP) | self.seeds).mean()) if len(self.action) else 0.0


@dataclass(frozen=True)
class Refine:
    """Flag rows that are hard before and after training, alone, or rated low, by so many deviations.

    Hard: both losses above their means by `hard` deviations; alone: `similarity` to the nearest rows below its
    mean by `alone`; low: `rating` below its mean by `low`. All deviations divide by the number of rows. A value
    that is not finite flags nothing. The rounds end after `rounds`, when fewer rows than `least_share` are
    flagged, or when the score has not risen for `patience` rounds.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"loss_before", "loss_after", "similarity", "rating"})
    hard: float = 1.0  # deviations of both losses above their means from which a row is simplified
    alone: float = 1.0  # deviations of the similarity below its mean from which a row seeds another
    low: float = 1.0  # deviations of the rating below its mean from which a row is rewritten
    rounds: int = 3  # most rounds of training
    least_share: float = 0.01  # if fewer rows are flagged, the rounds end
    patience: int = 1  # rounds without a better score after which they end

    def __post_init__(self) -> None:
        for name in ("hard", "alone", "low"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0 deviations, but got {getattr(self, name)}.")
        if not (self.rounds >= 1 and self.patience >= 1):
            raise ValueError(
                f"rounds and patience must be at least 1, but got {self.rounds} and {self.patience}."
            )
        if not 0 <= self.least_share < 1:
            raise ValueError(f"least_share must be in [0, 1), but got {self.least_share}.")

    def flag(self, columns: Columns) -> Flagged:
        """Return what to do with each row; one that is both hard and rated low is rewritten."""
        above = deviations(columns["loss_before"]) > self.hard
        hard = above & (deviations(columns["loss_after"]) > self.hard)
        low = deviations(columns["rating"]) < -self.low
        action = np.select([low, hard], [REWRITE, SIMPLIFY], KEEP).astype(np.int8)
        return Flagged(action, deviations(columns["similarity"]) < -self.alone)

    def ended(self, shares: Sequence[float], scores: Sequence[float]) -> str:
        """Return why the rounds are over, or nothing; given the flagged share and the score of each so far."""
        if len(scores) >= self.rounds:
            return f"all {self.rounds} rounds are done"
        if shares and shares[-1] < self.least_share:
            return f"{shares[-1]:.3g} of the rows are flagged, less than least_share ({self.least_share:g})"
        best = max(range(len(scores)), key=lambda place: scores[place], default=0)
        if len(scores) - 1 - best >= self.patience:
            return f"the score has not risen since round {best}"
        return ""


class Generation(NamedTuple):
    """The rows of the next round: their ids, and each one's parent, which is itself for a kept row."""

    ids: Ids
    parent: Ids
    action: NDArray[np.int8]  # why it is there: KEEP, or how its parent was used


def next_generation(ids: Ids, flagged: Flagged, number: int, lost: frozenset[int] = frozenset()) -> Generation:
    """Return the rows that remain and those to be made in round `number`.

    `lost` holds the ids of children that the user's function could not make: there the parent stays.
    """
    parts: list[tuple[Ids, Ids, NDArray[np.int8]]] = []
    for action in (SIMPLIFY, REWRITE, SEED):
        asked = flagged.seeds if action == SEED else flagged.action == action
        parents = ids[asked]
        children = child_ids(parents, number, action)
        made = ~np.isin(children, np.array(sorted(lost), np.int64))
        parts.append((children[made], parents[made], np.full(int(made.sum()), action, np.int8)))
    replaced = np.concatenate([parents for _, parents, action in parts[:2]])
    kept = ids[~np.isin(ids, replaced)]
    parts.insert(0, (kept, kept, np.full(len(kept), KEEP, np.int8)))
    return Generation(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def child_ids(parents: Ids, number: int, action: int) -> Ids:
    """Return the id of each row's child of this round and action: it is the same in every run."""
    found = [
        int.from_bytes(
            hashlib.blake2b(f"{parent}|{number}|{action}".encode(), digest_size=8).digest(), "little"
        )
        for parent in parents.tolist()
    ]
    return np.array([each >> 1 for each in found], np.int64)


def deviations(values: NDArray[np.floating]) -> Vector:
    """Return how many standard deviations each value lies above the mean; 0 where it is not finite."""
    found = values.astype(np.float64)
    known = np.isfinite(found)
    if not known.any():
        return np.zeros(len(found))
    mean, width = float(found[known].mean()), float(found[known].std())
    return np.where(known, (np.where(known, found, mean) - mean) / (width or 1.0), 0.0)


def similarity_to_nearest(embedding: NDArray[np.floating], count: int = 2) -> Vector:
    """Return each row's mean cosine to its `count` nearest other rows, `(rows,)`, in blocks.

    The mean of all rows is taken off first: hidden states of a language model all point one way.
    """
    centred = embedding.astype(np.float64) - embedding.mean(axis=0, dtype=np.float64)
    unit = unit_rows(centred)
    count = min(count, len(unit) - 1)
    if count < 1:
        return np.zeros(len(unit))
    found = np.empty(len(unit))
    for start in range(0, len(unit), BLOCK_ROWS):
        cosines = unit[start : start + BLOCK_ROWS] @ unit.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -np.inf
        found[start : start + len(cosines)] = np.partition(cosines, -count, axis=1)[:, -count:].mean(axis=1)
    return found
