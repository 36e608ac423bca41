"""The corpora of a selection, a pool and a target: their files, and the columns added to their rows."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.manifest import Group, Manifest
from shoal.search.errors import InputError

SAME = "same_as"  # column of the row that each one is a near duplicate of
TokenRows = NDArray[np.integer]  # (rows, length)
ScoreColumns = dict[str, NDArray[Any]]
RowPlaces = NDArray[np.uint32]  # (rows,) so a pool has less than 2 ** 32 - 1 rows
TOKENS_AT_ONCE = 1 << 18  # each takes some 50 bytes while it is hashed
LEFT_OUT = np.uint32(2**32 - 1)


class Corpus(NamedTuple):
    """A corpus whose rows are scored: a pool, or a target."""

    data: Data
    manifest: Manifest
    unseen: tuple[str, ...] = ()  # groups on which no member trains: nothing is chosen of them

    @property
    def groups(self) -> dict[str, Group]:
        return {name: group for name, group in self.manifest.groups.items() if name not in self.unseen}

    @property
    def store(self) -> Store:
        return Store(self.data.corpus)

    @property
    def files(self) -> list[str]:
        """The training files of all groups, in the groups' order."""
        return [file for group in self.groups.values() for file in group.splits["train"].files]

    @property
    def rows(self) -> int:
        return sum(group.splits["train"].rows for group in self.groups.values())


def stored_rows(store: Store, file: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the ids and the rows of one of a corpus's files."""
    table = store.read_table(file)
    return table["row_id"].to_numpy(), as_rows(table)


def parts_of(rows: NDArray[Any]) -> Iterator[slice]:
    """Yield the places of rows of tokens `(rows, width)`, or of records, in parts of `TOKENS_AT_ONCE`.

    A record counts as many as it has bytes. No rows are one empty part.
    """
    step = max(1, TOKENS_AT_ONCE // (rows.dtype.itemsize if rows.dtype.names else rows.shape[1]))
    yield from (slice(start, start + step) for start in range(0, max(len(rows), 1), step))


def read_columns(
    corpus: Corpus, folders: list[str], names: set[str] | None = None, places: RowPlaces | None = None
) -> ScoreColumns:
    """Return these columns of all training rows, in the order of the files; `names` None reads all.

    With `places` row i of the files stands at `places[i]`, and rows whose place is `LEFT_OUT` nowhere. Each
    column is filled file by file, so that no row is in memory twice.
    """
    store, found = corpus.store, ScoreColumns()
    total = corpus.rows if places is None else int((places != LEFT_OUT).sum())
    for folder in folders:
        start = 0
        for file in corpus.files:
            table = store.read_table(f"{folder}/{file}", columns=names and sorted(names))
            at = slice(start, start + len(table)) if places is None else places[start : start + len(table)]
            start += len(table)
            for name in set(table.column_names) - {"row_id"}:
                values = as_array(table[name])
                if isinstance(at, slice):
                    fill(found, name, total, at, values)
                else:
                    fill(found, name, total, at[at != LEFT_OUT], values[at != LEFT_OUT])
    return found


def fill(columns: ScoreColumns, name: str, rows: int, at: Any, values: NDArray[Any]) -> None:
    """Put values at their places in a column of so many rows, which is made with the first of them."""
    if name not in columns:
        columns[name] = np.empty((rows, *values.shape[1:]), values.dtype)
    elif np.result_type(columns[name], values) != columns[name].dtype:
        columns[name] = columns[name].astype(np.result_type(columns[name], values))
    columns[name][at] = values


def places_by_id(ids: NDArray[np.int64]) -> RowPlaces:
    """Return the place of each row among all, in the order of their ids: `(rows,)`."""
    found = np.empty(len(ids), np.uint32)
    found[np.argsort(ids, kind="stable")] = np.arange(len(ids), dtype=np.uint32)
    return found


def in_places(values: NDArray[Any], places: RowPlaces) -> NDArray[Any]:
    """Return values of rows in the order of the files, each at its place."""
    found = np.empty_like(values)
    found[places] = values
    return found


def column_names(corpus: Corpus, folders: list[str]) -> set[str]:
    """Return the names of the columns that scores have added: all files have the same."""
    some = corpus.files[:1]
    tables = [corpus.store.read_table(f"{folder}/{file}") for folder in folders for file in some]
    return {name for table in tables for name in table.column_names} - {"row_id"}


def check_same_columns(corpus: Corpus, folder: str, key: str) -> None:
    """Raise InputError where a score has made other columns in one file than in another."""
    store, first = corpus.store, None
    for file in corpus.files:
        found = pq.read_schema(store.path(f"{folder}/{file}"), filesystem=store.filesystem)
        said = ", ".join(f"{field.name} ({field.type})" for field in found if field.name != "row_id")
        if said != (first := first or said):
            raise InputError(
                f"{key}: score(rows) must return the same columns for all rows, but some have {first} "
                f"and others {said}."
            )


def read_ids(corpus: Corpus) -> NDArray[np.int64]:
    found, start = np.empty(corpus.rows, np.int64), 0
    for file in corpus.files:
        ids = corpus.store.read_table(file, columns=["row_id"])["row_id"].to_numpy()
        found[start : start + len(ids)] = ids
        start += len(ids)
    assert start == len(found), "the files hold as many rows as the manifest says"
    return found


def read_groups(corpus: Corpus) -> NDArray[np.int16]:
    """Return the number of each training row's group, in the order of the files."""
    rows = [group.splits["train"].rows for group in corpus.groups.values()]
    return np.repeat(np.arange(len(rows), dtype=np.int16), rows)


def key_of_values(values: Mapping[str, Any]) -> str:
    """Return a hash of plain values, for names of what follows from them."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()


def as_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column of numbers `(rows,)`, or of lists of one length `(rows, width)`."""
    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if (
        pa.types.is_list(whole.type)
        or pa.types.is_fixed_size_list(whole.type)
        or pa.types.is_large_list(whole.type)
    ):
        return np.asarray(whole.flatten().to_numpy(zero_copy_only=False).reshape(len(whole), -1))
    return np.asarray(whole.to_numpy(zero_copy_only=False))


def as_list_column(values: NDArray[Any]) -> pa.Array:
    """Return an array as a column: numbers, or lists of one length."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1]
    )
