"""Rows of one group of data, shared by the members of a brood: read and decoded once.

A group that fits is kept whole; of a larger one, a window of files that moves on with its readers. Both
hand out the order of `cluster/row_order.py`, which no timing, block, worker or restart changes.
"""

import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.cluster.metrics import CLOCK
from shoal.cluster.row_order import RowOrder
from shoal.cluster.rows import Rows, as_rows

PAGE_BYTES = 256 * 1024  # so much is shuffled and cached at a time
PAGES = 64  # cached for each stream; more than there are members at different places
OPEN = 8  # a window has so many chunks at hand, and so many turns

OPENED: "weakref.WeakSet[RowStream]" = weakref.WeakSet()  # streams of this process that may still read


class RowStream(ABC):
    """Rows of one group at any positions of its order."""

    def __init__(self, order: RowOrder, row_type: np.dtype[Any]):
        self.order, self.row_type = order, row_type
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self.filling: threading.Thread | None = None
        OPENED.add(self)

    def close(self, seconds: float | None = None) -> None:
        """Stop reading; whoever asks for rows that have not arrived is told so.

        Waits, at most so long, until nothing is asked of Ray any more, which may be shut down then.
        """
        self._fail(EOFError("The stream was closed."))
        if self.filling is not None:
            self.filling.join(seconds)

    @abstractmethod
    def rows_from(self, turn: int, first: int) -> Rows:
        """Return rows of a turn in their order, from the given one on: one at least, more as they are at hand.

        Waits until they have arrived.
        """

    def place(self, reader: object, cursor: int) -> int:
        """Say where a reader stands; returns the position that it may go on from."""
        return cursor

    def take(self, cursor: int, count: int) -> Rows:
        """Return the rows at these positions, `(count, ...)`, not to be written to."""
        rows = self.rows_from(*self.order.locate(cursor))[:count]
        if len(rows) == count:
            return rows
        found = [rows]
        while (count := count - len(rows)) > 0:
            cursor += len(rows)
            rows = self.rows_from(*self.order.locate(cursor))[:count]
            found.append(rows)
        return np.concatenate(found)

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait for the thread that fills the stream; `changed` must be held."""
        self.changed.wait_for(lambda: self.error is not None or ready())
        if self.error is not None and not ready():
            raise RuntimeError("The data stream ended early.") from self.error

    def _fail(self, error: BaseException) -> None:
        with self.changed:
            self.error = error
            self.changed.notify_all()


class WholeStream(RowStream):
    """A group that fits: a background thread takes its first epoch's blocks into one array."""

    def __init__(self, blocks: Iterable[pa.Table], order: RowOrder, row_type: np.dtype[Any]):
        super().__init__(order, row_type)
        self.page_rows = max(1, PAGE_BYTES // row_type.itemsize)
        self.page = lru_cache(maxsize=PAGES)(self._page)
        self.held: Rows = np.empty(order.rows, row_type)
        self.arrived = np.zeros(len(order.sizes), dtype=bool)
        self.filling = threading.Thread(target=self._fill, args=(blocks,), daemon=True)
        self.filling.start()

    def rows_from(self, turn: int, first: int) -> Rows:
        page, start = divmod(first, self.page_rows)
        return self.page(turn, page)[start:]

    def _page(self, turn: int, page: int) -> Rows:
        """Return a stretch of a turn's rows in their order: members at one place share the shuffling."""
        file = self.order.file(turn)
        with CLOCK.phase("data"):
            with self.changed:
                self._wait(lambda: bool(self.arrived[file]))
            stored = self.held[self.order.starts[file] : self.order.starts[file + 1]]
            chosen = self.order.shuffled(turn)[page * self.page_rows : (page + 1) * self.page_rows]
            rows = stored.take(chosen, axis=0)  # an index in brackets takes three times as long
            rows.flags.writeable = False
            return rows

    def pick(self, rows: NDArray[np.int64]) -> Rows:
        """Return stored rows by their numbers, whatever the order, `(rows, ...)`."""
        with CLOCK.phase("data"):
            files = np.unique(np.searchsorted(self.order.starts, rows, side="right") - 1)
            with self.changed:
                self._wait(lambda: bool(self.arrived[files].all()))
            return self.held[rows]

    def _fill(self, blocks: Iterable[pa.Table]) -> None:
        try:
            turns = iter(self.order.files(0))
            file, filled = -1, 0
            for block in blocks:
                if self.error is not None:
                    return
                rows = as_rows(block, self.row_type)
                while len(rows):
                    if file < 0:
                        file, filled = next(turns), 0
                    size, start = int(self.order.sizes[file]), int(self.order.starts[file])
                    part = rows[: size - filled]
                    self.held[start + filled : start + filled + len(part)] = part
                    filled, rows = filled + len(part), rows[len(part) :]
                    if filled == size:
                        self._arrive(file)
                        file = -1
            missing = int((~self.arrived).sum())
            if missing:
                raise EOFError(f"{missing} of {len(self.arrived)} files did not arrive.")
        except BaseException as error:  # handed to whoever waits for a file
            self._fail(error)

    def _arrive(self, file: int) -> None:
        with self.changed:
            self.arrived[file] = True
            self.changed.notify_all()


class Chunk(NamedTuple):
    """The files of some turns in a row, read together; `fetch` returns all their rows in their order."""

    first: int  # turn
    turns: int
    fetch: Callable[[], Rows]


class WindowStream(RowStream):
    """A group larger than its room: the files between its slowest and its fastest reader, within a bound.

    `feed(turn)` yields chunks from a turn on, without end. Half of the bound lies behind the furthest
    position that was ever asked for; a reader that falls behind it jumps ahead to the first file that is
    left. So who jumps depends on what the readers ask for, never on when the rows arrive.
    """

    def __init__(
        self, feed: Callable[[int], Iterator[Chunk]], order: RowOrder, row_type: np.dtype[Any], bound: int
    ):
        super().__init__(order, row_type)
        self.feed = feed
        # rows; a file must not leave while it is read, so small bounds give way
        self.behind = max(bound // 2, 2 * int(order.sizes.max()))
        # `bound` = 1/2 behind + 1/6 ahead + 1/3 slack: chunks are whole tasks and overhang both ends
        self.ahead = bound // 6
        self.chunks: deque[Chunk] = deque()
        self.readers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.furthest = 0  # the furthest position of any reader so far
        self.enough = np.inf  # while no reader is beyond this position, enough rows are ahead
        self.least = 0  # where the first file begins that is wholly within the bound
        self.wanted = 0  # this turn must be read, however far ahead it is
        self.open, self.rows_of = lru_cache(OPEN)(self._open), lru_cache(OPEN)(self._rows_of)

    def place(self, reader: object, cursor: int) -> int:
        with self.changed:
            self.furthest = max(self.furthest, cursor)
            if self.furthest - self.behind > self.least:
                turn, into = self.order.locate(self.furthest - self.behind)
                self.least = self.order.start(turn + bool(into))
            cursor = max(cursor, self.least)
            self.readers[reader] = cursor
            if self.furthest > self.enough:  # waking the other thread at every batch would cost more than it
                self.changed.notify_all()
        return cursor

    def leave(self, reader: object) -> None:
        """Forget where a reader stood: it reads no more."""
        with self.changed:
            self.readers.pop(reader, None)

    def rows_from(self, turn: int, first: int) -> Rows:
        return self.rows_of(turn)[first:]

    def _rows_of(self, turn: int) -> Rows:
        """Return a turn's rows in their order; waits until they have arrived."""
        with CLOCK.phase("data"):
            with self.changed:
                self.wanted = max(self.wanted, turn)
                if self.filling is None:
                    self.filling = threading.Thread(target=self._fill, args=(turn,), daemon=True)
                    self.filling.start()
                self.changed.notify_all()
                self._wait(lambda: bool(self.chunks) and turn < self._end())
                held = (each for each in self.chunks if each.first <= turn < each.first + each.turns)
                chunk = next(held, None)
            if chunk is None:
                raise LookupError(f"turn {turn} has left the window: a reader must ask `place` first.")
            start = self.order.start(turn) - self.order.start(chunk.first)
            return self.open(chunk)[start : start + int(self.order.sizes[self.order.file(turn)])]

    def _open(self, chunk: Chunk) -> Rows:
        rows = chunk.fetch()
        rows.flags.writeable = False
        return rows

    def _end(self) -> int:
        """Return the first turn that has not arrived."""
        return self.chunks[-1].first + self.chunks[-1].turns

    def _fill(self, turn: int) -> None:
        try:
            # a resumed brood begins with its slowest member
            slowest = min(self.readers.values(), default=self.order.start(turn))
            for chunk in self.feed(self.order.locate(max(slowest, self.least))[0]):
                with self.changed:
                    self.chunks.append(chunk)
                    self.enough = self.order.start(self._end()) - self.ahead
                    self._drop()
                    self.changed.notify_all()
                    self.changed.wait_for(lambda: self.error is not None or self._hungry())
                    if self.error is not None:
                        return
        except BaseException as error:  # handed to whoever waits for a file
            self._fail(error)

    def _hungry(self) -> bool:
        return self._end() <= self.wanted or self.furthest > self.enough

    def _drop(self) -> None:
        """Let go of what all readers have passed, and of what lies before the bound."""
        passed = max(min(self.readers.values(), default=0), self.least)
        while len(self.chunks) > 1 and self.order.start(self.chunks[1].first) <= passed:
            self.chunks.popleft()
            for views in (self.open, self.rows_of):  # they would keep what they show
                views.cache_clear()


def close_streams(seconds: float) -> None:
    """Close all streams of this process, within so many seconds."""
    deadline = time.monotonic() + seconds
    for stream in list(OPENED):
        stream.close(max(0.0, deadline - time.monotonic()))


def rooms(sizes: Sequence[float], budget: float) -> list[float]:
    """Return what each group may hold of a worker's budget: all of it where that is no more than its share.

    The smallest groups first; what they leave of their share is for the larger ones.
    """
    found, left = [0.0] * len(sizes), budget
    for done, group in enumerate(sorted(range(len(sizes)), key=lambda group: sizes[group])):
        found[group] = min(sizes[group], left / (len(sizes) - done))
        left -= found[group]
    return found
