"""Batches of arrays that fit into memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from shoal.trainables.arrays import map_nest, same_memory
from shoal.trainables.member import Batches, SavedState, copies


class Shuffled:
    """Draws batches of rows from an array, or from a nest of equally long arrays, in a new order each epoch.

    Every batch is full: the rows that are left at the end of an epoch are skipped.
    """

    def __init__(self, arrays: Any, batch: int, seed: int = 0):
        self.arrays, self.batch, self.seed = arrays, batch, seed
        lengths: list[int] = []
        map_nest(lambda array: lengths.append(len(array)), arrays)
        if len(set(lengths)) != 1 or lengths[0] < batch:
            raise ValueError(f"all arrays must have the same rows, at least {batch}, but have {lengths}.")
        self.rows = lengths[0]
        self.cursor = 0  # number of batches drawn
        self.epoch, self.order = -1, np.arange(0)

    def next(self) -> Any:
        epoch, place = divmod(self.cursor, self.rows // self.batch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        self.cursor += 1
        chosen = self.order[place * self.batch : (place + 1) * self.batch]
        return map_nest(lambda array: array[chosen], self.arrays)

    def alike(self, other: Batches) -> bool:
        """Say whether the other draws the same batches from the same arrays from now on."""
        # a subclass may draw in another way
        if self is other or type(self) is not Shuffled or type(other) is not Shuffled:
            return False
        places = [(each.batch, each.seed, each.cursor) for each in (self, other)]
        return places[0] == places[1] and same_memory(self.arrays, other.arrays)

    @copies
    def state(self) -> SavedState:
        return {"cursor": self.cursor, "seed": self.seed}

    @copies
    def load(self, state: SavedState) -> None:
        if int(state["seed"]) != self.seed:
            self.epoch = -1
        self.cursor, self.seed = int(state["cursor"]), int(state["seed"])


class NoBatches:
    """The batches of a network that is not trained."""

    def next(self) -> Any:
        raise AssertionError("a network that is only scored has no rows to train on")

    def state(self) -> SavedState:
        return {}

    def load(self, state: SavedState) -> None:
        pass


def alike(batches: Sequence[Batches]) -> bool:
    """Say whether all draw the same batches from now on; False if they cannot tell (see `Comparable`)."""
    tells = getattr(batches[0], "alike", None)
    return tells is not None and all(tells(other) for other in batches[1:])
