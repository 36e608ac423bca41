"""Rows of one group of data: streamed in by Ray Data, handed out in an order that never depends on timing.

The order of an epoch is a permutation of the group's files, and of the rows within each file, drawn
from (seed, group, epoch) alone. Block sizes, the number of workers and a restart do not change it,
and the first rows can be handed out as soon as the first file has arrived.
"""

import threading
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray

from cluster.metrics import CLOCK
from cluster.storage import Store


class RowOrder:
    """Where the row at each position of an endless series of epochs lies: an index into stored rows."""

    def __init__(self, group: str, sizes: Sequence[int], seed: int):
        self.sizes = np.asarray(sizes, dtype=np.int64)  # rows per file, (files,)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self.rows = int(self.starts[-1])
        self.key = (seed, zlib.crc32(group.encode()))
        self.epoch = lru_cache(maxsize=8)(self._epoch)
        self.within = lru_cache(maxsize=16)(self._within)

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        files = np.random.default_rng([*self.key, epoch]).permutation(len(self.sizes))
        return files, np.concatenate([[0], np.cumsum(self.sizes[files])])

    def _within(self, epoch: int, file: int) -> NDArray[np.int64]:
        return np.random.default_rng([*self.key, epoch, 1 + file]).permutation(self.sizes[file])

    def files(self, epoch: int) -> list[int]:
        return [int(file) for file in self.epoch(epoch)[0]]

    def places(self, cursor: int, count: int) -> NDArray[np.int64]:
        """Return the stored row of each of the positions cursor ... cursor + count - 1."""
        found = []
        while count > 0:
            epoch, position = divmod(cursor, self.rows)
            files, starts = self.epoch(epoch)
            turn = int(np.searchsorted(starts, position, side="right")) - 1
            taken = min(count, int(starts[turn + 1]) - position)
            first = position - int(starts[turn])
            file = int(files[turn])
            found.append(self.starts[file] + self.within(epoch, file)[first : first + taken])
            cursor, count = cursor + taken, count - taken
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


class RowStream:
    """The rows of one group, shared by the members of a brood: read and decoded once.

    A background thread takes Arrow blocks from a Ray Data iterator, in the order of the first epoch,
    into one array; later epochs gather from it.
    """

    def __init__(self, blocks: Iterable[pa.Table], order: RowOrder, sequence_length: int):
        self.order = order
        self.tokens = np.empty((order.rows, sequence_length), dtype=np.uint16)
        self.arrived = np.zeros(len(order.sizes), dtype=bool)
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        threading.Thread(target=self._fill, args=(blocks,), daemon=True).start()

    def take(self, cursor: int, count: int) -> NDArray[np.uint16]:
        """Return the rows at these positions, `(count, sequence_length)`; waits until they have arrived."""
        with CLOCK.phase("data"):
            places = self.order.places(cursor, count)
            needed = np.unique(np.searchsorted(self.order.starts, places, side="right") - 1)
            with self.changed:
                self.changed.wait_for(lambda: self.error is not None or self.arrived[needed].all())
            if self.error is not None:
                raise RuntimeError("The data stream ended early.") from self.error
            return self.tokens[places]

    def _fill(self, blocks: Iterable[pa.Table]) -> None:
        try:
            turns = iter(self.order.files(0))
            file, filled = -1, 0
            for block in blocks:
                rows = as_rows(block)
                while len(rows):
                    if file < 0:
                        file, filled = next(turns), 0
                    size, start = int(self.order.sizes[file]), int(self.order.starts[file])
                    part = rows[: size - filled]
                    self.tokens[start + filled : start + filled + len(part)] = part
                    filled, rows = filled + len(part), rows[len(part) :]
                    if filled == size:
                        self._arrive(file)
                        file = -1
            missing = int((~self.arrived).sum())
            if missing:
                raise EOFError(f"{missing} of {len(self.arrived)} files did not arrive.")
        except BaseException as error:  # handed to whoever waits in `take`
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def _arrive(self, file: int) -> None:
        with self.changed:
            self.arrived[file] = True
            self.changed.notify_all()


def as_rows(block: pa.Table) -> NDArray[np.uint16]:
    """View a block's `tokens` column as `(rows, sequence_length)`."""
    column = block["tokens"].combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def open_dataset(store: Store, files: Sequence[str]) -> ray.data.Dataset:
    """Return a dataset of the files' `tokens`, in this order, read by tasks of a quarter CPU.

    `ray.data.read_parquet` (2.60) lists files in tasks of one whole CPU, whatever it is told. On a
    small machine the workers hold the CPUs, and such a task waits for ever.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    names = ray.data.from_items([{"file": file} for file in files], override_num_blocks=len(files))
    read: Any = partial(read_files, uri=store.uri)
    return names.map_batches(read, batch_size=None, batch_format="pyarrow", num_cpus=0.25)


def read_files(batch: pa.Table, uri: str) -> pa.Table:
    store = Store(uri)
    return pa.concat_tables(store.read_table(name).select(["tokens"]) for name in batch["file"].to_pylist())


def blocks_of(iterator: Any) -> Iterable[pa.Table]:
    """Return a Ray Data iterator's blocks as Arrow tables, whole."""
    return iterator.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)
