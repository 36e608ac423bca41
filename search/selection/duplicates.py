"""Near duplicates: of rows whose sets of shingles are alike, the first by id stays (Broder, 1997: MinHash)."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.search.config.selection import Duplicates
from shoal.search.corpus.scores import FOLDER, RECORD
from shoal.search.errors import InputError
from shoal.search.selection.leaks import stretch_hashes
from shoal.search.selection.scorers import tokens_of
from shoal.search.selection.scoring import SAME, Corpus, key_of_values, read_ids, stored_rows

SECTION = "selection.duplicates"


def duplicate_folder(pool: Corpus, settings: Duplicates, report: Callable[[str], None]) -> str:
    """Return the folder that says of each row which one it is a near duplicate of; make it if there is none."""
    named = {"settings": settings.model_dump(), "content": pool.manifest.content, "unseen": list(pool.unseen)}
    folder = f"{FOLDER}/duplicates-{key_of_values(named)}"
    if pool.store.exists(f"{folder}/{RECORD}"):
        return folder
    ids = read_ids(pool)
    same, start = find_duplicates(pool, settings, ids), 0
    for file in pool.files:
        rows = len(pool.store.read_table(file, columns=["row_id"]))
        part = slice(start, start + rows)
        pool.store.write_table(f"{folder}/{file}", pa.table({"row_id": ids[part], SAME: same[part]}))
        start += rows
    dropped = int((same != ids).sum())
    pool.store.write_json(f"{folder}/{RECORD}", {**named, "rows": len(ids), "dropped": dropped})
    report(f"{SECTION}: {dropped} of {len(ids)} rows are near duplicates of others")
    return folder


def find_duplicates(pool: Corpus, settings: Duplicates, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row the id of the row that it is a near duplicate of, and that stays; else its own id.

    Rows are looked at in the order of their ids, so neither files nor workers decide which of two stays.
    """
    library = minhash_library()
    signatures = []
    for file in pool.files:
        tokens = tokens_of(stored_rows(pool.store, file)[1], SECTION)
        signatures += [minhash(library, row, settings) for row in shingles(tokens, settings.shingle)]
    index = library.MinHashLSH(threshold=settings.similarity, num_perm=settings.permutations)
    kept: dict[int, Any] = {}
    found = ids.copy()
    for place in np.argsort(ids, kind="stable").tolist():
        own, sign = int(ids[place]), signatures[place]
        alike = [other for other in index.query(sign) if sign.jaccard(kept[other]) >= settings.similarity]
        if alike:
            found[place] = min(alike)
            continue
        index.insert(own, sign)
        kept[own] = sign
    return found


def shingles(rows: NDArray[np.unsignedinteger], size: int) -> NDArray[np.uint64]:
    """Return the hash of each shingle of `size` tokens, in 32 bits, `(rows, shingles)`."""
    return stretch_hashes(rows, min(size, rows.shape[1])) >> np.uint64(32)


def minhash(library: Any, hashes: NDArray[np.uint64], settings: Duplicates) -> Any:
    made = library.MinHash(num_perm=settings.permutations, seed=1, hashfunc=int)
    made.update_batch(np.unique(hashes).tolist())
    return made


def minhash_library() -> Any:
    """Return datasketch; raises InputError that names the extra which installs it."""
    try:
        return importlib.import_module("datasketch")
    except ImportError as error:
        raise InputError(
            f"{SECTION}: needs the package datasketch (pip install 'shoal[duplicates]'); install it, or leave "
            f"{SECTION} out."
        ) from error
