"""In which order a group's rows are read: an endless series of epochs, fixed by (seed, group, epoch) alone.

The order of an epoch is a permutation of the group's files, and of the rows within each file. Block
sizes, the number of workers and a restart do not change it, and the first rows can be handed out as
soon as the first file has arrived.
"""

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray


class RowOrder:
    """Where the row at each position of an endless series of epochs lies.

    A turn is a file's place in the series: turn `epoch * files + place`.
    """

    def __init__(self, group: str, sizes: Sequence[int], seed: int):
        self.sizes = np.asarray(sizes, dtype=np.int64)  # rows per file, (files,)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self.rows = int(self.starts[-1])
        self.key = (seed, zlib.crc32(group.encode()))
        self.epoch = lru_cache(maxsize=8)(self._epoch)
        self.within = lru_cache(maxsize=16)(self._within)
        self.last = (0, 0, 0)  # first position, end and number of the turn that was last looked up

    def _epoch(self, epoch: int) -> tuple[list[int], list[int]]:
        """Return an epoch's files in their order, and where each begins in the epoch."""
        files = np.random.default_rng([*self.key, epoch]).permutation(len(self.sizes))
        return files.tolist(), list(accumulate(self.sizes[files].tolist(), initial=0))

    def _within(self, epoch: int, file: int) -> NDArray[np.int64]:
        return drawn([*self.key, epoch, 1 + file], int(self.sizes[file]))

    def files(self, epoch: int) -> list[int]:
        return self.epoch(epoch)[0]

    def file(self, turn: int) -> int:
        epoch, place = divmod(turn, len(self.sizes))
        return self.files(epoch)[place]

    def start(self, turn: int) -> int:
        """Return the position of a turn's first row."""
        epoch, place = divmod(turn, len(self.sizes))
        return epoch * self.rows + self.epoch(epoch)[1][place]

    def locate(self, cursor: int) -> tuple[int, int]:
        """Return the turn of a position, and how far into it the position is."""
        first, end, turn = self.last  # each batch asks, and mostly for the same turn as before
        if not first <= cursor < end:
            epoch, position = divmod(cursor, self.rows)
            starts = self.epoch(epoch)[1]
            place = bisect_right(starts, position) - 1
            first, turn = epoch * self.rows + starts[place], epoch * len(self.sizes) + place
            self.last = first, epoch * self.rows + starts[place + 1], turn
        return turn, cursor - first

    def shuffled(self, turn: int) -> NDArray[np.int64]:
        """Return which of its file's rows stand at a turn's positions, `(rows of the file,)`."""
        return self.within(turn // len(self.sizes), self.file(turn))

    def seeds(self, turn: int) -> list[int]:
        """Return what `drawn` makes `shuffled(turn)` of, in whatever process."""
        return [*self.key, turn // len(self.sizes), 1 + self.file(turn)]

    def places(self, cursor: int, count: int) -> NDArray[np.int64]:
        """Return the stored row of each of the positions cursor ... cursor + count - 1."""
        found = []
        while count > 0:
            turn, first = self.locate(cursor)
            part = self.shuffled(turn)[first : first + count]
            found.append(self.starts[self.file(turn)] + part)
            cursor, count = cursor + len(part), count - len(part)
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def drawn(seeds: Sequence[int], rows: int) -> NDArray[np.int64]:
    """Return a permutation of so many rows."""
    return np.random.default_rng(list(seeds)).permutation(rows)
