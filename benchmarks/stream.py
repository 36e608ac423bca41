"""Rows a second that a member gets: Shoal's streams beside Ray's, MosaicML's and torch's loaders, and numpy.

Three groups of rows of 128 uint16 tokens, batches of 64, a member that does nothing with them. Two regimes:
the groups fit into memory, and they are read from Parquet while the member takes them. Shoal's proportions
change every 10 batches, the others' are fixed. The last line is one JSON object.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset
from numpy.typing import NDArray

from benchmarks.parts import loaders
from benchmarks.parts.family import core_seconds
from shoal.cluster.reading import blocks_of, open_dataset, read_on
from shoal.cluster.row_order import RowOrder
from shoal.cluster.rows import token_rows
from shoal.cluster.session import session
from shoal.cluster.storage import Store
from shoal.cluster.streams import RowStream, WholeStream, WindowStream
from shoal.search.config.sections import Data
from shoal.search.corpus.batches import MixedBatches
from shoal.search.corpus.packing import write_part

GROUPS, LENGTH, BATCH = ("code", "docs", "law"), 128, 64
ROW_TYPE = token_rows(LENGTH)
FILE_ROWS = 4096  # as `shoal corpus` writes them
Files = dict[str, list[str]]  # of each group
MEMORY = Data.model_fields["memory_megabytes"].default  # of a worker, as a run has it by default
WINDOW_BYTES = int(MEMORY * 2**20) // len(GROUPS)  # of each group, in the streamed regime


def write_lists(store: Store, file: str, ids: NDArray[np.int64], tokens: NDArray[np.uint16]) -> None:
    """Write a part as other tools do."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(tokens.ravel()), LENGTH)
    table = pa.table({"row_id": ids, "tokens": column})
    store.write_table(file, table, compression="lz4", row_group_size=FILE_ROWS)


def write_groups(store: Store, files: int, write: Callable[..., None] = write_part) -> Files:
    """Write Parquet as a corpus has it; the first token of every row is the number of its group."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 257, (FILE_ROWS, LENGTH)).astype(np.uint16)
    found: dict[str, list[str]] = {}
    for number, group in enumerate(GROUPS):
        for file in range(files):
            rows = rng.permutation(tokens)
            rows[:, 0] = number
            found.setdefault(group, []).append(f"{group}/part-{file:05d}.parquet")
            write(store, found[group][-1], np.arange(FILE_ROWS) + file * FILE_ROWS, rows)
    return found


def resident(store: Store, files: Files) -> dict[str, RowStream]:
    streams: dict[str, RowStream] = {}
    for group, names in files.items():
        order = RowOrder(group, [FILE_ROWS] * len(names), 0)
        dataset = open_dataset(store, [names[file] for file in order.files(0)])
        streams[group] = WholeStream(blocks_of(dataset.iterator()), order, ROW_TYPE)
    return streams


def streamed(store: Store, files: Files, room: int = WINDOW_BYTES) -> dict[str, WindowStream]:
    """Open windows that hold `room` bytes of each group, as a run does."""
    streams: dict[str, WindowStream] = {}
    bound = room // ROW_TYPE.itemsize
    for group, names in files.items():
        order = RowOrder(group, [FILE_ROWS] * len(names), 0)
        feed = partial(read_on, store, names, order, ROW_TYPE, room // 4, 1)
        streams[group] = WindowStream(feed, order, ROW_TYPE, bound * 3 // 4)
    return streams


def changing(members: list[MixedBatches], seed: int = 0) -> Iterator[NDArray[np.uint16]]:
    """Yield the members' batches in turn; every 10 batches each gets new proportions."""
    rng = np.random.default_rng(seed)
    mixtures = itertools.cycle(rng.dirichlet(np.full(len(GROUPS), 4.0), 97))
    for step in itertools.count():
        for member in members:
            if step % 10 == 0:
                member.proportions = next(mixtures)
            yield member.next()


def members_of(streams: Mapping[str, RowStream], count: int = 1) -> list[MixedBatches]:
    return [MixedBatches(streams, np.full(len(GROUPS), 1 / len(GROUPS)), BATCH) for _ in range(count)]


def gather(rows: int, take: bool = False) -> Iterator[NDArray[np.uint16]]:
    """Yield batches gathered from plain arrays by orders that are drawn before, in fixed proportions.

    By an index in brackets, as most write it, or by numpy's `take`, which is faster.
    """
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 257, (rows, LENGTH)).astype(np.uint16) for _ in GROUPS]
    orders = [rng.permutation(rows) for _ in GROUPS]
    counts = [len(part) for part in np.array_split(np.arange(BATCH), len(GROUPS))]
    for start in itertools.cycle(range(0, rows - BATCH, max(counts))):
        yield np.concatenate(
            [
                array.take(order[start : start + count], axis=0)
                if take
                else array[order[start : start + count]]
                for array, order, count in zip(arrays, orders, counts, strict=True)
            ]
        )


class Rate(NamedTuple):
    per_second: float
    per_core_second: float  # of the cores that this process and Ray's took: other programs do not change it


def rate(batches: Iterator[Any], seconds: float) -> Rate:
    """Return rows a second over some seconds."""
    rows, began, used = 0, time.perf_counter(), core_seconds()
    while (spent := time.perf_counter() - began) < seconds:
        for batch in itertools.islice(batches, 50):
            rows += len(batch)
    return Rate(rows / spent, rows / (core_seconds() - used))


def scan(store: Store, files: Files, threads: bool) -> Iterator[pa.RecordBatch]:
    """Yield the tokens' batches of a bare scan, again and again."""
    paths = [store.path(name) for names in files.values() for name in names]
    for _ in itertools.count():
        yield from pyarrow.dataset.dataset(paths).to_batches(columns=["tokens"], use_threads=threads)


def batches_to_new_mixture(streams: dict[str, RowStream]) -> int:
    """Return how many batches after a change is the first that holds the new proportions, to a row."""
    (member,) = members_of(streams)
    for _ in range(5):
        member.next()
    member.proportions = np.array([0.0, 0.25, 0.75])
    for batches in itertools.count(1):
        counts = np.bincount(member.next()[:, 0], minlength=len(GROUPS))
        if (np.abs(counts - BATCH * member.proportions) <= 1).all():
            return batches
    raise AssertionError("never reached")


def first_batch(open_streams: Callable[[], Mapping[str, RowStream]]) -> float:
    began = time.perf_counter()
    members_of(open_streams())[0].next()
    return time.perf_counter() - began


def measure_resident(store: Store, files: Files, seconds: float, repeats: int, mosaic: str) -> Any:
    """Return each system's rates of the repeats, in turn, so that a slow minute of the machine hits all."""
    rows = len(files["code"]) * FILE_ROWS
    first = first_batch(lambda: resident(store, files))
    streams = resident(store, files)
    for stream in streams.values():
        stream.take(0, rows)  # not timed: until all of it has arrived
    arrays = loaders.save_arrays(store, files)
    found: dict[str, list[Rate]] = {}
    for _ in range(repeats):
        for name, make in {
            "shoal": lambda: changing(members_of(streams)),
            "shoal_eight": lambda: changing(members_of(streams, 8)),
            "numpy_gather": lambda: gather(rows),
            "numpy_take": lambda: gather(rows, take=True),
            "torch_loader": lambda: loaders.torch_rows(arrays, BATCH, False),
            "torch_loader_batched": lambda: loaders.torch_rows(arrays, BATCH, True),
            "ray_mix": lambda: loaders.mix(store, files, BATCH, materialised=True),
        }.items():
            batches = make()
            next(batches)  # not timed: opening
            found.setdefault(name, []).append(rate(batches, seconds))
        if mosaic:
            found.setdefault("mosaicml", []).append(mosaic_rate(mosaic, arrays, seconds, "resident"))
    return found, first, batches_to_new_mixture(streams)


def measure_streamed(
    store: Store, lists: Store, files: Files, seconds: float, repeats: int, mosaic: str
) -> Any:
    """The clocks run from the first batch on; what is read is in the page cache for all.

    The bare scans read the same rows twice: from lists, as other tools write them, and from what Shoal reads.
    """
    windows = streamed(store, files)
    first = first_batch(lambda: windows)
    close(windows)
    arrays = loaders.save_arrays(store, files)
    found: dict[str, list[Rate]] = {}
    for _ in range(repeats):
        windows = streamed(store, files)
        for name, make in {
            "pyarrow_scan_threads": partial(scan, lists, files, threads=True),
            "pyarrow_scan_alone": partial(scan, lists, files, threads=False),
            "pyarrow_scan_fixed_threads": partial(scan, store, files, threads=True),
            "pyarrow_scan_fixed_alone": partial(scan, store, files, threads=False),
            "shoal": partial(changing, members_of(windows)),
            "ray_mix": partial(loaders.mix, store, files, BATCH, materialised=False),
        }.items():
            batches = make()
            rate(batches, loaders.SETTLE)  # not kept
            found.setdefault(name, []).append(rate(batches, seconds))
            batches.close()  # what else a loader has begun must end before Ray does
            if name == "shoal":
                close(windows)
        if mosaic:
            found.setdefault("mosaicml", []).append(mosaic_rate(mosaic, arrays, seconds, "streamed"))
    return found, first


def close(windows: Mapping[str, WindowStream]) -> None:
    for window in windows.values():
        window.close()


def mosaic_rate(python: str, arrays: list[str], seconds: float, regime: str) -> Rate:
    return Rate(*loaders.mosaic(python, arrays, BATCH, seconds, regime))


def table(title: str, found: dict[str, list[Rate]]) -> tuple[dict[str, float], dict[str, float]]:
    """Print each system's rates; return the medians by second and by core-second."""
    print(f"{title}: rows a second, median (low to high), and rows a second of one core")
    seconds, cores = {}, {}
    for name, rates in found.items():
        each = [rate.per_second for rate in rates]
        seconds[name] = round(statistics.median(each))
        cores[name] = round(statistics.median(rate.per_core_second for rate in rates))
        spread = f"({min(each):,.0f} to {max(each):,.0f})"
        print(f"  {name:27}{seconds[name]:>12,}  {spread:30}{cores[name]:>12,}", flush=True)
    return seconds, cores


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--mosaic", default="", help="a Python that has mosaicml-streaming; its numpy is older")
    parser.add_argument("--full", action="store_true", help="five repeats of 20 s on four times the rows")
    arguments = parser.parse_args()
    repeats, seconds, size = (5, 20.0, 4) if arguments.full else (arguments.repeats, arguments.seconds, 1)
    with tempfile.TemporaryDirectory() as folder, session():
        small, large, lists = (Store(f"{folder}/{name}") for name in ("small", "large", "lists"))
        some, many = write_groups(small, 49), write_groups(large, 640 * size)
        write_groups(lists, 640 * size, write_lists)
        inside, first, new = measure_resident(small, some, seconds, repeats, arguments.mosaic)
        rows, rows_of_core = table("resident", inside)
        outside, first_streamed = measure_streamed(large, lists, many, seconds, repeats, arguments.mosaic)
        rows_streamed, streamed_of_core = table("streamed", outside)
    for name in ("pyarrow_scan", "pyarrow_scan_fixed"):
        for rates in (rows_streamed, streamed_of_core):
            rates[name] = max(rates[f"{name}_threads"], rates[f"{name}_alone"])
    result = {
        "rows_per_second": rows,
        "streamed_rows_per_second": rows_streamed,
        "batches_to_new_mixture": new,
        "eight_members_over_one": round(rows["shoal_eight"] / rows["shoal"], 3),
        "first_batch_s": {"resident": round(first, 2), "streamed": round(first_streamed, 2)},
        "shoal_over_ray_mix": round(rows["shoal"] / rows["ray_mix"], 2),
        "shoal_over_numpy_gather": round(rows["shoal"] / rows["numpy_gather"], 3),
        "shoal_over_numpy_take": round(rows["shoal"] / rows["numpy_take"], 3),
        "streamed_over_pyarrow_scan": round(rows_streamed["shoal"] / rows_streamed["pyarrow_scan"], 3),
        "streamed_over_pyarrow_scan_fixed": round(
            rows_streamed["shoal"] / rows_streamed["pyarrow_scan_fixed"], 3
        ),
        "rows_per_core_second": rows_of_core,
        "streamed_rows_per_core_second": streamed_of_core,
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
