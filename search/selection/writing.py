"""Write chosen rows as a corpus like any other, and beside it a table of what was decided about each row."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.manifest import Group, Manifest, publish_corpus
from shoal.search.corpus.packing import COMPRESSION, PART_ROWS, Split
from shoal.search.corpus.scores import KEPT_SCORE
from shoal.search.corpus.staging import move, staging_folder
from shoal.search.selection.corpora import Corpus, as_array
from shoal.search.selection.deciding import Decided

SELECTIONS = "selections"  # folder of the corpus: for each selection its decisions and its record
DECISIONS, CHOSEN = "decisions", "selection.json"
SEVERAL = ("log_ratio", "influence")  # columns with a number for each target
TRAIN = "train"


def write_selected(
    pool: Corpus, place: Data, decided: Decided, added: Mapping[str, pa.Table] = MappingProxyType({})
) -> Manifest:
    """Write the chosen rows' files and the held-out ones, and the manifest last; return it.

    A row that is chosen n times stands there n times, under ids of their own. Groups of which no row is chosen
    are not in the corpus; groups on which nobody trains are there whole. `added` holds new rows of groups.
    """
    store, starts = Store(place.corpus), group_starts(pool)
    chosen = set(np.unique(decided.group[decided.selected.copies > 0]).tolist())
    with staging_folder(store) as stage:
        groups: dict[str, Group] = {}
        files: list[str] = []
        for name, group in pool.manifest.groups.items():
            splits = dict(group.splits)
            if name in starts:
                if list(starts).index(name) not in chosen and name not in added:
                    continue
                parts = full_parts(pool, name, decided, starts[name])
                splits[TRAIN] = write_group(pool, store, stage, name, parts, added.get(name))
            for split, held in group.splits.items():
                if split != TRAIN or name not in starts:
                    copy_files(pool.store, store, stage, held.all_files)
            groups[name] = replace(group, splits=splits)
            files += [file for split in splits.values() for file in split.all_files]
        manifest = replace(pool.manifest, content=content_of(groups), groups=groups)
        move(store, stage, files)
        publish_corpus(store, manifest)
    return manifest


def group_starts(pool: Corpus) -> dict[str, int]:
    """Return for each group how many rows the files of those before it hold."""
    rows = [group.splits[TRAIN].rows for group in pool.groups.values()]
    return dict(zip(pool.groups, itertools.accumulate(rows, initial=0), strict=False))


def write_group(
    pool: Corpus, store: Store, stage: str, name: str, parts: Iterator[pa.Table], added: pa.Table | None
) -> Split:
    """Write tables of a group's chosen rows, and those that are new; return its split."""
    more = [] if added is None else [added]
    written = [
        write_file(store, stage, f"{name}/{TRAIN}/chosen-{number:05d}", table)
        for number, table in enumerate(itertools.chain(parts, more))
    ]
    sizes = [rows for _, rows in written]
    tokens = sum(sizes) * pool.manifest.sequence_length
    return Split(sum(sizes), tokens, [file for file, _ in written], sizes)


def full_parts(pool: Corpus, name: str, decided: Decided, start: int) -> Iterator[pa.Table]:
    """Yield a group's chosen rows in tables of `PART_ROWS`, the last one shorter.

    `start` is how many rows come before the group's. One file of the pool is in memory at a time, and what
    waits for a full table.
    """
    waiting: list[pa.Table] = []
    for file in pool.groups[name].splits[TRAIN].files:
        table = pool.store.read_table(file)
        ids, columns = file_columns(pool, decided, file, start)
        rows = decided.places[start : start + len(table)]
        assert np.array_equal(ids, decided.ids[rows]), "decisions are about other rows"
        waiting.append(chosen_rows(table, ids, decided.selected.copies[rows], columns))
        start += len(table)
        while sum(map(len, waiting)) >= PART_ROWS:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, PART_ROWS)
            waiting = [whole.slice(PART_ROWS)]
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting)


def chosen_rows(
    table: pa.Table, ids: NDArray[np.int64], copies: NDArray[np.int32], columns: Mapping[str, NDArray[Any]]
) -> pa.Table:
    """Return a file's chosen rows with the numbers that they were chosen by, each as often as it was chosen."""
    places = np.repeat(np.arange(len(copies)), copies)
    first = np.concatenate([[0], np.cumsum(copies)[:-1]])
    copy = np.arange(len(places)) - first[places]
    found = table.take(places)
    index = found.schema.get_field_index("row_id")
    found = found.set_column(index, found.schema.field(index), pa.array(ids_of_copies(ids[places], copy)))
    for name, values in columns.items():
        found = found.append_column(name, pa.array(values[places]))
    return found


def file_columns(
    pool: Corpus, decided: Decided, file: str, start: int
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Return the ids of a file, and the columns that hold one number a row, under names that no corpus has.

    They are read from the scores' files, since not all of them are in memory; vectors stay out.
    """
    ids = pool.store.read_table(file, columns=["row_id"])["row_id"].to_numpy()
    found: dict[str, NDArray[Any]] = {}
    for folder in decided.folders:
        table = pool.store.read_table(f"{folder}/{file}")
        for name in table.column_names:
            values = as_array(table[name])
            if values.ndim == 1 and name != "row_id":
                found[f"{KEPT_SCORE}{name}"] = values
            elif name in SEVERAL:
                found |= {f"{KEPT_SCORE}{name}_{place}": each for place, each in enumerate(values.T)}
    for name, values in decided.computed.items():
        found[f"{KEPT_SCORE}{name}"] = values[decided.places[start : start + len(ids)]]
    return ids, found


def ids_of_copies(ids: NDArray[np.int64], copy: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ids themselves for first copies, and ids of their own for the others."""
    found = ids.copy()
    for place in np.flatnonzero(copy).tolist():
        named = f"{ids[place]}|copy|{copy[place]}".encode()
        found[place] = int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "little") >> 1
    return found


def write_file(store: Store, stage: str, name: str, table: pa.Table) -> tuple[str, int]:
    """Write a file under a name that says what is in it; return that name and the number of rows."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    digest = hashlib.blake2b(sink.getvalue(), digest_size=8).hexdigest()
    file = f"{name}-{digest}.parquet"
    options = {"compression": COMPRESSION, "use_dictionary": False, "write_statistics": ["row_id"]}
    store.write_table(f"{stage}/{file}", table, row_group_size=PART_ROWS, **options)
    return file, len(table)


def copy_files(source: Store, store: Store, stage: str, files: list[str]) -> None:
    for file in files:
        store.write(f"{stage}/{file}", source.read(file))


def content_of(groups: dict[str, Group]) -> str:
    """Return a hash of all rows: the files' names hold hashes of theirs."""
    each = [(name, split) for name, group in groups.items() for split in group.splits.values()]
    names = [f"{name}/{split.rows}/{file}" for name, split in each for file in split.files]
    return hashlib.blake2b("\n".join(names).encode(), digest_size=16).hexdigest()


def write_decisions(store: Store, folder: str, pool: Corpus, decided: Decided) -> None:
    """Write what was decided about each row, a part for each file of the pool, for `shoal select --explain`."""
    names, found, start = list(pool.groups), decided.selected, 0
    for number, file in enumerate(pool.files):
        columns = file_columns(pool, decided, file, start)
        rows = decided.places[start : start + len(columns[0])]
        start += len(rows)
        same = columns[0] if decided.same_as is None else decided.same_as[rows]
        table = pa.table(
            {
                "row_id": columns[0],
                "group": pa.DictionaryArray.from_arrays(decided.group[rows].astype(np.int32), names),
                "copies": found.copies[rows],
                "margin": found.margin[rows],
                "reason": pa.DictionaryArray.from_arrays(
                    found.reason[rows].astype(np.int32), list(found.reasons)
                ),
                "duplicate_of": pa.array(same, mask=same == columns[0]),
                **{name.removeprefix(KEPT_SCORE): values for name, values in columns[1].items()},
            }
        )
        store.write_table(f"{folder}/{DECISIONS}/{number:06d}.parquet", table)


def decision_of(store: Store, folder: str, row: int) -> dict[str, Any] | None:
    """Return what was decided about a row, or None if the pool has no such row; one part is read at a time."""
    for part in store.names(f"{folder}/{DECISIONS}"):
        place = f"{folder}/{DECISIONS}/{part}"
        if row in (ids := store.read_table(place, columns=["row_id"])["row_id"].to_numpy()):
            found: dict[str, Any] = store.read_table(place).slice(int(np.argmax(ids == row)), 1).to_pylist()[0]
            return found
    return None
