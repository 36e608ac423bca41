"""A member's batches: rows of every group, cut to its proportions."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.storage import Store
from cluster.streams import as_rows
from policies.mixing import Vector, apportion
from search.corpus.build import PART_ROWS, Split


class Rows(Protocol):
    def take(self, cursor: int, count: int) -> NDArray[np.uint16]: ...


class MixedBatches:
    """Rows taken from each group's shared stream at this member's own cursors.

    New proportions hold from the next batch on; the cursors and the debt of rounding move with the
    member's state, so a clone goes on where its donor is.
    """

    def __init__(self, streams: Mapping[str, Rows], proportions: Vector, batch: int):
        self.streams, self.batch = list(streams.values()), batch
        self.proportions = proportions
        self.cursors = [0] * len(self.streams)
        self.debt = np.zeros(len(self.streams))

    def next(self) -> NDArray[np.uint16]:
        counts, self.debt = apportion(self.proportions, self.batch, self.debt)
        return self.take(counts.tolist())

    def take(self, counts: Sequence[int]) -> NDArray[np.uint16]:
        """Return the next rows of each group, as many as are asked for, whatever the proportions are."""
        parts = []
        for place, count in enumerate(counts):
            parts.append(self.streams[place].take(self.cursors[place], count))
            self.cursors[place] += count
        return np.concatenate(parts)

    def state(self) -> dict[str, Any]:
        return {
            "cursors": list(self.cursors),
            "debt": self.debt.copy(),
            "proportions": self.proportions.copy(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.cursors = list(state["cursors"])
        self.debt = np.array(state["debt"])
        self.proportions = np.array(state["proportions"])


def file_rows(split: Split) -> list[int]:
    """Return how many rows each file of a split holds: all are full but the last."""
    full = len(split.files) - 1
    return [PART_ROWS] * full + [split.rows - full * PART_ROWS]


def first_rows(store: Store, split: Split, count: int) -> NDArray[np.uint16]:
    """Return the first rows of a split, `(rows, sequence_length)`: the same ones for every member."""
    parts: list[NDArray[np.uint16]] = []
    for file in split.files:
        parts.append(as_rows(store.read_table(file)))
        if sum(map(len, parts)) >= count:
            break
    return np.concatenate(parts)[:count]
