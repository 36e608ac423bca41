"""The streams of a run: which groups a worker holds whole, and which it reads through a window."""

from collections.abc import Iterable
from functools import partial

from ray import train

from shoal.cluster.reading import blocks_of, read_on
from shoal.cluster.row_order import RowOrder
from shoal.cluster.session import capacity
from shoal.cluster.storage import Store
from shoal.cluster.streams import RowStream, WholeStream, WindowStream, rooms
from shoal.search.config.run import Run
from shoal.search.config.sections import Data
from shoal.search.corpus.batches import file_rows
from shoal.search.corpus.manifest import Manifest
from shoal.search.errors import InputError

LEAST_FILES = (
    8  # files that a window must hold: two being read, two ahead, and the files of one task at each end
)


def windows(data: Data, manifest: Manifest) -> dict[str, int]:
    """Return how many rows a worker may hold of each group that is too large to be held whole."""
    names, each = list(manifest.groups), manifest.row_type.itemsize
    splits = [manifest.groups[name].splits["train"] for name in names]
    sizes = [split.rows * each for split in splits]
    file = max(max(file_rows(split)) for split in splits)
    found = {}
    for name, size, room in zip(names, sizes, rooms(sizes, data.memory_megabytes * 2**20), strict=True):
        if room < size:
            found[name] = int(room) // each
            if found[name] < LEAST_FILES * file:
                least = LEAST_FILES * file * each * len(names) / 2**20
                raise InputError(
                    f"data.memory_megabytes: every worker holds the corpus's training rows, or a window of "
                    f"each group that is too large, which takes {least:.0f} MiB for {len(names)} groups, but "
                    f"it may hold {data.memory_megabytes:g}; raise it or lower data.megabytes."
                )
    return found


def open_streams(run: Run, manifest: Manifest) -> dict[str, RowStream]:
    """Open one stream for each group; a Ray Train worker calls it once for all its members."""
    bounds = windows(run.data, manifest)
    found: dict[str, RowStream] = {}
    row_type, store = manifest.row_type, Store(run.data.corpus)
    for name, group in manifest.groups.items():
        if name in run.unseen:
            continue
        split = group.splits["train"]
        order = RowOrder(name, file_rows(split), run.seed)
        if name not in bounds:
            found[name] = WholeStream(blocks_of(train.get_dataset_shard(name)), order, row_type)
            continue
        each = row_type.itemsize
        at_once = max(1, int(capacity()["CPU"] / len(bounds)))
        feed = partial(read_on, store, split.files, order, row_type, bounds[name] * each // 4, at_once)
        found[name] = WindowStream(feed, order, row_type, bounds[name] * 3 // 4)
    return found


def limits(data: Data, manifest: Manifest, groups: Iterable[str]) -> list[int] | None:
    """Return how many rows of each group a member may read, or None if rows repeat without end."""
    passes = data.epochs or (1 if data.exhausted != "repeat" else None)
    if passes is None:
        return None
    return [manifest.groups[name].splits["train"].rows * passes for name in groups]
