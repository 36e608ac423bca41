"""Rows as Ray Data reads them: a group's files, by tasks of a part of a CPU, in a given order.

`ray.data.read_parquet` (2.60) lists files in tasks of one whole CPU, whatever it is told. On a small machine
the workers hold the CPUs, and such a task waits for ever; so files are read by our own `map_batches`.
"""

import mmap
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray

from shoal.cluster.row_order import RowOrder, drawn
from shoal.cluster.rows import EITHER, Rows, as_bytes, as_column, as_rows
from shoal.cluster.storage import Store
from shoal.cluster.streams import Chunk

TASK_BYTES = 64 << 20  # most that one task reads; starting a small task costs more than its reading
# `getrefcount` of the cached buffer when no view of it is alive: the cache, our local, and the call's argument
UNUSED = 3
SMALL_ROOM = 40 << 20  # bytes; a group with less room on its way gives memory back after each task
SEGMENT = 48  # tasks in one dataset; the next dataset starts while the last EARLY tasks are read
EARLY = 8
STEP_SECONDS = 0.005  # an executor step longer than this has already blocked on a task: no pause is added
PAUSES = (0.001, 0.1)  # seconds after a shorter step: the first pause, and the longest
ROWS_IN_A_STAGE = 64  # rows that a model in a stage sees at once


def open_dataset(store: Store, files: Sequence[str]) -> ray.data.Dataset:
    """Return a dataset of the files' rows, in this order: one block a file."""
    return _dataset([{"file": file} for file in files], partial(read_files, uri=store.uri))


def _dataset(
    tasks: Sequence[dict[str, Any]], read: Any, room: int | None = None, at_once: int | None = None
) -> ray.data.Dataset:
    """Return a dataset of one block for each task; its blocks on the way take at most `room` bytes.

    Ray starts a process for each task that runs `at_once`, which takes seconds, so few are better at first.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    options = context.execution_options
    options.preserve_order = True
    # these are not part of the context of the datasets that are opened next
    had = options.resource_limits, context.custom_execution_callback_classes
    options.resource_limits = ray.data.ExecutionResources(object_store_memory=room)
    callbacks: list[Any] = [*had[1], Unhurried]
    context.custom_execution_callback_classes = callbacks
    try:
        planned = ray.data.from_items(list(tasks), override_num_blocks=len(tasks))
        return planned.map_batches(
            read, batch_size=None, batch_format="pyarrow", num_cpus=0.25, concurrency=at_once
        )
    finally:
        options.resource_limits, context.custom_execution_callback_classes = had


class Taken:
    """How many of a dataset's blocks have been taken; whoever waits for the next one wakes."""

    def __init__(self) -> None:
        self.changed, self.blocks = threading.Condition(), 0

    def one(self) -> None:
        with self.changed:
            self.blocks += 1
            self.changed.notify_all()


STARTING = threading.local()  # `taken` belongs to the dataset that this thread is about to start


class Unhurried:
    """What Ray Data's executor calls at each of its steps: it waits here, so that it does not take a core.

    An executor (2.60) whose rows nobody wants yet looks at its tasks again and again without a pause, in a
    thread of this process. Three such groups took 6 microseconds of a core for each row, and reading one.
    Each look that did not itself wait for a task is followed by a longer pause, which ends when a block is
    taken.
    """

    def __init__(self) -> None:
        self.taken: Taken = getattr(STARTING, "taken", None) or Taken()
        self.pause, self.seen, self.looked = PAUSES[0], 0, time.monotonic()

    def on_execution_step(self, executor: Any) -> None:
        waited = time.monotonic() - self.looked > STEP_SECONDS
        with self.taken.changed:
            if waited or self.taken.changed.wait_for(lambda: self.taken.blocks != self.seen, self.pause):
                self.pause, self.seen = PAUSES[0], self.taken.blocks
            else:
                self.pause = min(2 * self.pause, PAUSES[1])
        self.looked = time.monotonic()

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing to do."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing to do."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing to do."""


def read_files(batch: pa.Table, uri: str) -> pa.Table:
    """Return the rows of a batch's files; runs in a task, so one thread is all it takes."""
    store, names = Store(uri), batch["file"].to_pylist()
    return pa.concat_tables(store.read_part(name, columns=EITHER, use_threads=False) for name in names)


def read_turns(batch: pa.Table, uri: str) -> pa.Table:
    """Return the rows of some turns, `(files, seeds, rows in all)`, in their order.

    So the rows are shuffled where they are read, once for all members, and beside the members' own process.
    """
    (task,) = batch.to_pylist()
    size = task["rows"] * task["bytes"]
    found = room_for(size, task["keeps"])[:size].reshape(task["rows"], task["bytes"])
    store, filled, column = Store(uri), 0, ""
    for name, seeds in zip(task["files"], task["seeds"], strict=True):
        part = store.read_part(name, columns=EITHER, use_threads=False)
        rows, (column,) = as_bytes(part), part.column_names
        # without "clip" a whole copy would be made first, in case an index is wrong
        rows.take(drawn(seeds, len(rows)), axis=0, out=found[filled : filled + len(rows)], mode="clip")
        filled += len(rows)
    if filled != len(found):
        raise ValueError(f"{task['files']} must hold {len(found)} rows as the corpus says, but hold {filled}.")
    if not task["keeps"]:  # Arrow must give the files' memory back too
        del rows, part
        pa.default_memory_pool().release_unused()
    return pa.table({column: as_column(found)})


def room_for(size: int, keeps: bool) -> NDArray[np.uint8]:
    """Return room for at least so many bytes; what this process `keeps` of it serves the next task too.

    Pages that are new to a process cost more than reading. Ray copies a task's rows to its store before the
    process gets the next task; should it ever hold them longer, the next task gets room of its own.
    """
    if keeps:
        room = kept_room((size - 1).bit_length())
        if sys.getrefcount(room) <= UNUSED:
            return room
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)  # `np.empty` would be kept by the C library


@lru_cache(maxsize=1)
def kept_room(bits: int) -> NDArray[np.uint8]:
    return np.empty(1 << bits, np.uint8)


def look_at(
    store: Store,
    picks: Sequence[tuple[str, Sequence[int]]],  # file, places of the rows in it
    look: type,
    arguments: Sequence[Any],
    processes: int,
    cpus: float,
    gpus: float = 0.0,
) -> ray.data.Dataset:
    """Return the rows as `look(*arguments)` gives them back, block by block: computed, in Ray's store."""
    pieces = [
        {"file": name, "rows": list(rows[first : first + ROWS_IN_A_STAGE])}
        for name, rows in picks
        for first in range(0, len(rows), ROWS_IN_A_STAGE)
    ]
    read: Any = partial(read_rows, uri=store.uri)
    names = ray.data.from_items(pieces, override_num_blocks=len(pieces))
    rows = names.map_batches(read, batch_size=None, batch_format="pyarrow", num_cpus=0.25)
    looked = rows.map_batches(
        look,
        fn_constructor_args=arguments,
        batch_size=ROWS_IN_A_STAGE,
        batch_format="pyarrow",
        concurrency=processes,
        num_cpus=cpus,
        num_gpus=gpus,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    return looked.materialize()


def read_rows(batch: pa.Table, uri: str) -> pa.Table:
    """Return these rows of these files."""
    store = Store(uri)
    each = zip(batch["file"].to_pylist(), batch["rows"].to_pylist(), strict=True)
    return pa.concat_tables(
        store.read_table(name, columns=EITHER, use_threads=False).take(rows) for name, rows in each
    )


def blocks_of(iterator: Any) -> Iterable[pa.Table]:
    """Return a Ray Data iterator's blocks as Arrow tables, whole."""
    return iterator.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)


def read_on(
    store: Store,
    files: Sequence[str],
    order: RowOrder,
    row_type: np.dtype[Any],
    room: int,
    at_once: int,
    turn: int,
) -> Iterator[Chunk]:
    """Yield the chunks of an order from a turn on, epoch after epoch, without an end.

    A dataset reads a segment of the turns, and an epoch's end is nowhere special: the next dataset starts
    while the last blocks of the one before are still to come. Blocks stay in Ray's object store, which
    spills them to disk if it must, and what a dead task or a lost copy held is read again. `room` bytes
    bound what is on its way here.
    """
    pieces = task_turns(order, row_type.itemsize, room, turn)

    def start(segment: list[range]) -> Iterator[Chunk]:
        tasks = [
            {
                "files": [files[order.file(turn)] for turn in turns],
                "seeds": [order.seeds(turn) for turn in turns],
                "rows": order.start(turns.stop) - order.start(turns.start),
                "bytes": row_type.itemsize,
                "keeps": room > SMALL_ROOM,
            }
            for turns in segment
        ]
        dataset = _dataset(tasks, partial(read_turns, uri=store.uri), room, at_once)
        STARTING.taken = taken = Taken()
        try:
            bundles = iter(dataset.iter_internal_ref_bundles())
        finally:
            del STARTING.taken
        return chunks(bundles, segment, order, taken, row_type)

    with ThreadPoolExecutor(1, "next-segment") as opener:
        current = opener.submit(start, list(islice(pieces, SEGMENT)))
        while True:
            following: Future[Iterator[Chunk]] | None = None
            for place, chunk in enumerate(current.result()):
                if following is None and place >= SEGMENT - EARLY:
                    following = opener.submit(start, list(islice(pieces, SEGMENT)))
                yield chunk
            assert following is not None, "a segment has more than EARLY tasks"
            current = following


def task_turns(order: RowOrder, row_bytes: int, room: int, turn: int) -> Iterator[range]:
    """Yield the turns that each task reads: the first ones one file, so that the first rows come early."""
    size, most = int(order.sizes.max()) * row_bytes, min(TASK_BYTES, room // 2)
    turns = 1
    while True:
        yield range(turn, turn + turns)
        turn, turns = turn + turns, max(1, min(2 * turns, most // size))


def chunks(
    bundles: Iterator[Any], segment: Sequence[range], order: RowOrder, taken: Taken, row_type: np.dtype[Any]
) -> Iterator[Chunk]:
    """Yield a chunk for each task's turns: one block, or several where Ray Data has cut a large one."""
    blocks = (block for bundle in bundles for block in zip(bundle.block_refs, bundle.metadata, strict=True))
    for turns in segment:
        missing, found = order.start(turns.stop) - order.start(turns.start), []
        while missing > 0:
            block, metadata = next(blocks)
            taken.one()
            found.append(block)
            missing -= metadata.num_rows
        assert missing == 0, "a block holds rows of two tasks"
        yield Chunk(turns.start, len(turns), partial(fetch_blocks, tuple(found), row_type))


def fetch_blocks(blocks: Sequence[Any], row_type: np.dtype[Any]) -> Rows:
    """Return the blocks' rows, `(rows, ...)`: a view of the object store if it is one block."""
    found = [as_rows(block, row_type) for block in ray.get(list(blocks))]
    return found[0] if len(found) == 1 else np.concatenate(found)
