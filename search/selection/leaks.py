"""Rows of the pool that the target has too: stretches of tokens that both contain."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.sampling.chance import mixed_bits
from shoal.search.selection.corpora import Corpus, read_groups, stored_rows

STRETCH = 32  # tokens, or a quarter of a row if that is less: the stretches at a row's border are not seen
COMMON = 0.5  # a row leaks if more than this share of its stretches stand in the target
TOKENS_AT_ONCE = 1 << 18  # their hashes take some 50 bytes each while they are made
PRIME = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a power of it is lost
IN_TARGET = "in the target too"


class Leak(NamedTuple):
    """Which rows of the pool stand in the target, and how many of the target's rows stand in the pool."""

    rows: NDArray[np.bool_]  # (rows of the pool,)
    target: int
    target_rows: int
    by_group: dict[str, int]  # rows of each group of the pool

    @property
    def share(self) -> float:
        return self.target / max(self.target_rows, 1)


def find_leak(pool: Corpus, targets: Corpus) -> Leak:
    """Compare the pool with the target: wherever a row is cut, a document in both shares its stretches."""
    row_type = pool.manifest.row_type
    size = row_type.itemsize if row_type.names else min(STRETCH, max(pool.manifest.sequence_length // 4, 1))
    hashes = [stretch_hashes(rows, size) for rows in each_file(targets)]
    known = np.unique(np.concatenate([each.ravel() for each in hashes]))
    leaked, seen = [], [np.empty(0, np.uint64)]
    for rows in each_file(pool):
        found = stretch_hashes(rows, size)
        common = np.isin(found, known)
        leaked.append(common.mean(axis=1) > COMMON)
        if common.any():
            seen.append(np.unique(found[common]))
    rows_leaked, in_pool = np.concatenate(leaked), np.unique(np.concatenate(seen))
    theirs = sum(int((np.isin(each, in_pool).mean(axis=1) > COMMON).sum()) for each in hashes)
    groups = np.bincount(read_groups(pool)[rows_leaked], minlength=len(pool.groups))
    by_group = dict(zip(pool.groups, groups.tolist(), strict=True))
    return Leak(rows_leaked, theirs, targets.rows, {name: count for name, count in by_group.items() if count})


def each_file(corpus: Corpus) -> Iterator[NDArray[np.unsignedinteger]]:
    """Yield rows of tokens, some of a file at a time; of records their bytes, which are compared whole."""
    for file in corpus.files:
        _, rows = stored_rows(corpus.store, file)
        if rows.dtype.names:
            rows = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
        step = max(1, TOKENS_AT_ONCE // rows.shape[1])
        yield from (rows[start : start + step] for start in range(0, len(rows), step))


def stretch_hashes(rows: NDArray[np.unsignedinteger], size: int) -> NDArray[np.uint64]:
    """Return a hash of each stretch of `size` tokens, `(rows, stretches)`, wherever in a row it stands."""
    mixed = mixed_bits(rows.astype(np.uint64) + np.uint64(1))
    length = rows.shape[1]
    powers = np.cumprod(np.full(length, PRIME, np.uint64), dtype=np.uint64)
    sums = np.cumsum(mixed * powers, axis=1, dtype=np.uint64)
    ahead = np.concatenate([np.zeros((len(rows), 1), np.uint64), sums[:, :-size]], axis=1)
    within = sums[:, size - 1 :] - ahead
    # each stretch is multiplied by as many powers as bring it to one exponent
    return mixed_bits(within * powers[::-1][: within.shape[1]])
