"""The corpora of a selection, a pool and a target: their files, and the columns added to their rows."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.manifest import Group, Manifest

SAME = "same_as"  # column of the row that each one is a near duplicate of
TokenRows = NDArray[np.integer]  # (rows, length)
ScoreColumns = dict[str, NDArray[Any]]


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


def read_columns(corpus: Corpus, folders: list[str], names: set[str] | None = None) -> ScoreColumns:
    """Return these columns of all training rows in the order of the files; `names` None reads all."""
    parts: dict[str, list[NDArray[Any]]] = {}
    store = corpus.store
    for folder in folders:
        for file in corpus.files:
            table = store.read_table(f"{folder}/{file}", columns=names and sorted(names))
            for name in set(table.column_names) - {"row_id"}:
                parts.setdefault(name, []).append(as_array(table[name]))
    return {name: np.concatenate(each) for name, each in parts.items()}


def column_names(corpus: Corpus, folders: list[str]) -> set[str]:
    """Return the names of the columns that scores have added: all files have the same."""
    some = corpus.files[:1]
    tables = [corpus.store.read_table(f"{folder}/{file}") for folder in folders for file in some]
    return {name for table in tables for name in table.column_names} - {"row_id"}


def read_ids(corpus: Corpus) -> NDArray[np.int64]:
    parts = [corpus.store.read_table(file, columns=["row_id"])["row_id"].to_numpy() for file in corpus.files]
    return np.concatenate(parts)


def read_groups(corpus: Corpus) -> NDArray[np.int64]:
    """Return the number of each training row's group, in the order of the files."""
    rows = [group.splits["train"].rows for group in corpus.groups.values()]
    return np.repeat(np.arange(len(rows)), rows)


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
