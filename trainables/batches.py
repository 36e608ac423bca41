"""Batches of arrays that fit into memory."""

from typing import Any

import numpy as np

from trainables.arrays import map_nest
from trainables.member import State


class Shuffled:
    """Whole batches of an array's rows, or of a nest of arrays alike; each epoch has an order of its own."""

    def __init__(self, arrays: Any, batch: int, seed: int = 0):
        self.arrays, self.batch, self.seed = arrays, batch, seed
        lengths: list[int] = []
        map_nest(lambda array: lengths.append(len(array)), arrays)
        if len(set(lengths)) != 1 or lengths[0] < batch:
            raise ValueError(f"all arrays must have the same rows, at least {batch}, but have {lengths}.")
        self.rows = lengths[0]
        self.cursor = 0  # batches drawn
        self.epoch, self.order = -1, np.arange(0)

    def next(self) -> Any:
        epoch, place = divmod(self.cursor, self.rows // self.batch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        self.cursor += 1
        chosen = self.order[place * self.batch : (place + 1) * self.batch]
        return map_nest(lambda array: array[chosen], self.arrays)

    def state(self) -> State:
        return {"cursor": self.cursor, "seed": self.seed}

    def load(self, state: State) -> None:
        self.cursor, self.seed, self.epoch = int(state["cursor"]), int(state["seed"]), -1
