"""Rows of the pool that the target has too: stretches of tokens, or signs of records, that both contain."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.sampling.chance import mixed_bits
from shoal.search.selection.corpora import Corpus, parts_of, read_groups, stored_rows
from shoal.search.selection.signs import PRIME, Hashes, Signs, signs_of, telling

STRETCH = 32  # tokens, or a quarter of a row if that is less: the stretches at a row's border are not seen
COMMON = 0.5  # a row leaks if more than this share of its stretches stand in the target
IN_TARGET = "in the target too"
MANY = 32  # a prompt, an answer or a text that more rows of the pool have is no leak, such as a refusal


class Leak(NamedTuple):
    """Which rows of the pool stand in the target, and how many of the target's rows stand in the pool."""

    rows: NDArray[np.bool_]  # (rows of the pool,)
    target: int
    target_rows: int
    by_group: dict[str, int]  # rows of each group of the pool
    how: str = ""  # in what they are alike, in words
    let_go: int = 0  # prompts, answers and texts of the target that more than `MANY` rows of the pool have

    @property
    def share(self) -> float:
        return self.target / max(self.target_rows, 1)


def find_leak(pool: Corpus, targets: Corpus) -> Leak:
    """Compare the pool with the target: wherever a row is cut, a document in both shares its stretches."""
    size = min(STRETCH, max(pool.manifest.sequence_length // 4, 1))
    if pool.manifest.row_type.names:
        return records_leak(pool, targets, size)
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
    return Leak(rows_leaked, theirs, targets.rows, counts_by_group(pool, rows_leaked))


def counts_by_group(pool: Corpus, rows_leaked: NDArray[np.bool_]) -> dict[str, int]:
    groups = np.bincount(read_groups(pool)[rows_leaked], minlength=len(pool.groups))
    by_group = dict(zip(pool.groups, groups.tolist(), strict=True))
    return {name: count for name, count in by_group.items() if count}


def records_leak(pool: Corpus, targets: Corpus, least: int) -> Leak:
    """Compare records by their signs: one that is in the target makes a row a leak, whatever else it holds."""
    columns = pool.data.columns or {}
    texts = [
        name
        for name in pool.manifest.row_type.names or ()
        if getattr(columns.get(name), "kind", "") == "text" and columns[name].most is None
    ]
    theirs = list(each_signs(targets, texts, least))
    known = {name: telling([signs[name] for signs in theirs]) for name in (theirs[0] if theirs else ())}
    found, counts = rows_with(pool, texts, least, known)
    let_go = {name: keys[counts[name] > MANY] for name, keys in known.items() if name != "whole"}
    if some := sum(map(len, let_go.values())):
        known |= {name: np.setdiff1d(known[name], keys) for name, keys in let_go.items()}
        found, counts = rows_with(pool, texts, least, known)
    in_pool = {name: keys[counts[name] > 0] for name, keys in known.items()}
    rows = [each[name].row[np.isin(each[name].key, in_pool[name])] for each in theirs for name in known]
    target = len(np.unique(np.concatenate(rows))) if rows else 0
    how = "" if set(known) <= {"whole"} else ", whole or by what is asked or answered"
    return Leak(found, target, targets.rows, counts_by_group(pool, found), how, some)


def rows_with(
    pool: Corpus, texts: list[str], least: int, known: Mapping[str, Hashes]
) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.int64]]]:
    """Return which rows of the pool have one of these keys, and how often it has each key, by kind of sign."""
    found = np.zeros(pool.rows, np.bool_)
    counts = {name: np.zeros(len(keys), np.int64) for name, keys in known.items()}
    for signs in each_signs(pool, texts, least):
        for name, keys in known.items():
            there = np.isin(signs[name].key, keys)
            found[signs[name].row[there]] = True
            np.add.at(counts[name], np.searchsorted(keys, signs[name].key[there]), 1)
    return found, counts


def each_signs(corpus: Corpus, texts: list[str], least: int) -> Iterator[dict[str, Signs]]:
    """Yield the signs of a corpus's records, some at a time; rows are numbered in the order of the files."""
    start = 0
    for rows in each_file(corpus):
        found = signs_of(rows, texts, least)
        yield {name: signs._replace(row=signs.row + start) for name, signs in found.items()}
        start += len(rows)


def each_file(corpus: Corpus) -> Iterator[NDArray[Any]]:
    """Yield rows, some of a file at a time."""
    for file in corpus.files:
        _, rows = stored_rows(corpus.store, file)
        yield from (rows[part] for part in parts_of(rows))


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
