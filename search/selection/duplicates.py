"""Near duplicates: of rows whose sets of shingles are alike, the first by id stays (Broder, 1997: MinHash).

Signatures are made file by file and kept on disk until rows are compared. In memory are the ids, one number a
row for one band of the signatures at a time, and the signatures of those rows that share a band with others.
"""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.policies.sampling.chance import mixed_bits
from shoal.policies.sampling.interface import Ids
from shoal.policies.selection.ngrams import within_one_text
from shoal.search.config.run import Run
from shoal.search.config.selection import Duplicates
from shoal.search.corpus.scores import FOLDER, RECORD
from shoal.search.errors import InputError
from shoal.search.selection.corpora import SAME, Corpus, key_of_values, parts_of, read_ids, stored_rows
from shoal.search.selection.interface import counted_texts
from shoal.search.selection.leaks import stretch_hashes
from shoal.search.selection.stages import on_files

DUPLICATES_KEY = "selection.duplicates"
SIGNATURE, BAND = "signature", "band_"
ODD = np.uint64(3)
Signatures = NDArray[np.uint32]  # (rows, permutations)


def duplicate_folder(run: Run, pool: Corpus, settings: Duplicates, report: Callable[[str], None]) -> str:
    """Return the folder that says of each row which one it is a near duplicate of; make it if there is none."""
    named = {"settings": settings.model_dump(), "content": pool.manifest.content, "unseen": list(pool.unseen)}
    folder = f"{FOLDER}/duplicates-{key_of_values(named)}"
    if pool.store.exists(f"{folder}/{RECORD}"):
        return folder
    bands = bands_of(minhash_library(), settings)
    signed = f"{folder}/{SIGNATURE}"
    on_files(run, partial(Signer, pool.data.corpus, signed, settings, bands), pool.files)
    ids = read_ids(pool)
    same, start = find_duplicates(pool, signed, settings, ids, bands[0]), 0
    for file in pool.files:
        rows = len(pool.store.read_table(file, columns=["row_id"]))
        part = slice(start, start + rows)
        pool.store.write_table(f"{folder}/{file}", pa.table({"row_id": ids[part], SAME: same[part]}))
        start += rows
    dropped = int((same != ids).sum())
    pool.store.write_json(f"{folder}/{RECORD}", {**named, "rows": len(ids), "dropped": dropped})
    pool.store.delete(signed)
    report(f"{DUPLICATES_KEY}: {dropped} of {len(ids)} rows are near duplicates of others")
    return folder


class Signer:
    """Writes the signatures of files, and a hash of each of their bands."""

    def __init__(self, corpus: str, folder: str, settings: Duplicates, bands: tuple[int, int]):
        self.store, self.folder, self.settings, self.bands = Store(corpus), folder, settings, bands
        self.library = minhash_library()

    def __call__(self, file: str) -> int:
        """Return how many rows were signed; none if an earlier stage has done the file."""
        place = f"{self.folder}/{file}"
        if self.store.exists(place):
            return 0
        ids, rows = stored_rows(self.store, file)
        tokens, segment = counted_texts(rows, DUPLICATES_KEY)
        signatures = np.concatenate([self.signed(tokens, segment, part) for part in parts_of(tokens)])
        width = signatures.shape[1] * signatures.itemsize
        content = pa.py_buffer(np.ascontiguousarray(signatures))
        stored = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(signatures), [None, content])
        columns = {f"{BAND}{number}": band for number, band in enumerate(band_hashes(signatures, *self.bands))}
        self.store.write_table(place, pa.table({"row_id": ids, SIGNATURE: stored, **columns}))
        return len(ids)

    def signed(self, tokens: NDArray[Any], segment: NDArray[np.integer] | None, part: slice) -> Signatures:
        """Return the signatures of some rows: not all shingles of a file are in memory."""
        inside = None if segment is None else segment[part]
        hashes = shingles(tokens[part], self.settings.shingle, inside)
        return np.array([minhash(self.library, each, self.settings) for each in hashes], np.uint32)


def band_hashes(signatures: Signatures, bands: int, size: int) -> Iterator[NDArray[np.uint64]]:
    """Yield a hash of `size` numbers of each row's signature, for each band, `(rows,)`."""
    for number in range(bands):
        found = np.full(len(signatures), number, np.uint64)
        for column in signatures[:, number * size : (number + 1) * size].T:
            found = mixed_bits(found * ODD + column)
        yield found


def find_duplicates(pool: Corpus, signed: str, settings: Duplicates, ids: Ids, bands: int) -> Ids:
    """Return for each row the id of the row that it is a near duplicate of, and that stays; else its own id.

    Rows are looked at in the order of their ids, so neither files nor workers decide which of two stays.
    """
    order = np.argsort(ids, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    shared = [
        part
        for number in range(bands)
        if len(part := bucket_mates(read_numbers(pool, signed, f"{BAND}{number}")[order]))
    ]
    if not shared:
        return ids.copy()
    rows = np.unique(np.concatenate([part[:, 1] for part in shared]))
    chosen = np.zeros(len(ids), bool)
    chosen[order[rows]] = True
    signatures, places = read_signatures(pool, signed, chosen)
    signatures = signatures[np.argsort(rank[places], kind="stable")]  # in the order of ids
    numbered = [np.column_stack([part[:, 0], np.searchsorted(rows, part[:, 1])]) for part in shared]
    stays = greedy(signatures, numbered, settings.similarity)
    found = ids.copy()
    found[order[rows]] = ids[order[rows[stays]]]
    return found


def bucket_mates(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return bucket and row of all rows whose key another row has too, `(pairs, 2)`."""
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    begins = np.concatenate([[True], ~same]) if len(keys) else np.empty(0, bool)
    bucket = np.cumsum(begins) - 1
    several = np.bincount(bucket)[bucket] > 1 if len(keys) else begins
    return np.column_stack([bucket[several], order[several]])


def greedy(signatures: Signatures, shared: list[NDArray[np.int64]], similarity: float) -> NDArray[np.int64]:
    """Return for each row the first that stays and is alike to it, or itself: `(rows,)`.

    `shared` holds for each band which rows are in one bucket of it. Rows of one signature are looked at as one.
    """
    width = signatures.dtype.itemsize * signatures.shape[1]
    whole = np.ascontiguousarray(signatures).view(np.dtype((np.void, width))).ravel()
    _, first, of = np.unique(whole, return_index=True, return_inverse=True)
    leader = first[of]  # the first row of the same signature
    buckets: list[list[tuple[int, int]]] = [[] for _ in range(len(signatures))]
    for band, part in enumerate(shared):
        for bucket, row in part.tolist():
            if leader[row] == row:
                buckets[row].append((band, bucket))
    stays, kept = np.arange(len(signatures)), dict[tuple[int, int], list[int]]()
    for row, own in enumerate(buckets):
        if leader[row] != row:
            stays[row] = stays[leader[row]]
            continue
        others = np.array(sorted({other for each in own for other in kept.get(each, ())}), np.int64)
        alike = others[(signatures[others] == signatures[row]).mean(axis=1) >= similarity]
        if len(alike):
            stays[row] = alike[0]
            continue
        for each in own:
            kept.setdefault(each, []).append(row)
    return stays


def read_numbers(pool: Corpus, folder: str, name: str) -> NDArray[Any]:
    parts = [pool.store.read_table(f"{folder}/{file}", columns=[name])[name].to_numpy() for file in pool.files]
    return np.concatenate(parts)


def read_signatures(
    pool: Corpus, folder: str, chosen: NDArray[np.bool_]
) -> tuple[Signatures, NDArray[np.int64]]:
    """Return the signatures of the chosen rows, and their places in the order of the files."""
    parts, start = [], 0
    for file in pool.files:
        table = pool.store.read_table(f"{folder}/{file}", columns=[SIGNATURE])
        wanted = table.filter(pa.array(chosen[start : start + len(table)]))[SIGNATURE]
        start += len(table)
        if len(wanted):
            parts.append(np.frombuffer(b"".join(wanted.to_pylist()), np.uint32).reshape(len(wanted), -1))
    return np.concatenate(parts), np.flatnonzero(chosen)


def shingles(
    rows: NDArray[np.unsignedinteger], size: int, segment: NDArray[np.integer] | None = None
) -> NDArray[np.uint64] | list[NDArray[np.uint64]]:
    """Return the hashes of the shingles of `size` tokens in each row, in 32 bits.

    With `segment` those alone that lie within one text; a row of shorter texts is one shingle as a whole.
    """
    size = min(size, rows.shape[1])
    found: NDArray[np.uint64] = stretch_hashes(rows, size) >> np.uint64(32)
    if segment is None:
        return found
    whole = stretch_hashes(np.where(segment > 0, rows, 0), rows.shape[1])[:, :1] >> np.uint64(32)
    inside = within_one_text(segment, size)
    return [
        each[held] if held.any() else all_of for each, held, all_of in zip(found, inside, whole, strict=True)
    ]


def minhash(library: Any, hashes: NDArray[np.uint64], settings: Duplicates) -> Any:
    """Return a row's signature, `(permutations,)`."""
    made = library.MinHash(num_perm=settings.permutations, seed=1, hashfunc=int)
    made.update_batch(np.unique(hashes).tolist())
    return made.hashvalues


def bands_of(library: Any, settings: Duplicates) -> tuple[int, int]:
    """Return into how many bands a signature is cut, and their size, so that similar rows share one."""
    index = library.MinHashLSH(threshold=settings.similarity, num_perm=settings.permutations)
    return index.b, index.r


def minhash_library() -> Any:
    """Return datasketch; raises InputError that names the extra which installs it."""
    try:
        return importlib.import_module("datasketch")
    except ImportError as error:
        raise InputError(
            f"{DUPLICATES_KEY}: needs the package datasketch (pip install 'shoal[duplicates]'); install it, or "
            f"leave {DUPLICATES_KEY} out."
        ) from error
