"""Near duplicates beside datasketch's own index, and in a corpus."""

from pathlib import Path

import numpy as np
import pytest

from shoal.cluster.storage import Store
from shoal.search.config.selection import Duplicates
from shoal.search.runs.select import why
from shoal.search.selection.duplicates import band_hashes, bands_of, bucket_mates, greedy, minhash, shingles
from shoal.search.selection.select import select_corpus
from shoal.search.selection.writing import DECISIONS
from tests.search.selection.test_select import places, run_of

__all__ = ["places"]  # a fixture
datasketch = pytest.importorskip("datasketch")


def rows_with_copies() -> np.ndarray:
    """Return rows in the order of their ids: each fifth one is another with a changed beginning."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 200, (400, 64)).astype(np.uint16)
    for place in range(0, 400, 5):
        rows[place] = rows[rng.integers(400)]
        rows[place, : rng.integers(20)] = 7
    rows[50] = rows[51] = rows[52]
    return rows


def test_the_same_rows_are_found_as_by_the_index_of_datasketch() -> None:
    settings = Duplicates(similarity=0.6, permutations=64)
    signatures = np.array([minhash(datasketch, each, settings) for each in shingles(rows_with_copies(), 8)])
    bands, size = bands_of(datasketch, settings)
    found = greedy(signatures, [bucket_mates(each) for each in band_hashes(signatures, bands, size)], 0.6)
    index, kept, wanted = datasketch.MinHashLSH(threshold=0.6, num_perm=64), {}, np.arange(400)
    scheme = datasketch.MinHash(num_perm=64).scheme
    for place, values in enumerate(signatures):
        sign = datasketch.MinHash(num_perm=64, hashfunc=int, hashvalues=values, scheme=scheme)
        alike = [other for other in index.query(sign) if sign.jaccard(kept[other]) >= 0.6]
        if alike:
            wanted[place] = min(alike)
        else:
            index.insert(place, sign)
            kept[place] = sign
    assert np.array_equal(found, wanted) and (found != np.arange(400)).sum() > 40


def test_who_stays_by_hand() -> None:
    # rows 0 and 1 agree in three of four numbers, 1 and 2 too, but 0 and 2 in two; 3 is 1 once more
    signatures = np.array([[1, 1, 1, 1], [1, 1, 1, 2], [1, 1, 3, 2], [1, 1, 1, 2]], np.uint32)
    shared = [np.array([[0, 0], [0, 1], [0, 2], [0, 3]])]
    # 1 is alike to 0 and goes, so 2 has nobody to be alike to and stays
    assert greedy(signatures, shared, 0.75).tolist() == [0, 0, 2, 0]
    # rows that share no bucket are not compared
    assert greedy(signatures[:3], [np.array([[0, 1], [0, 2]])], 0.75).tolist() == [0, 1, 1]


def test_rows_that_share_a_key_by_hand() -> None:
    keys = np.array([5, 9, 5, 7, 9], np.uint64)
    assert bucket_mates(keys).tolist() == [[0, 0], [0, 2], [2, 1], [2, 4]]
    assert bucket_mates(keys[:2]).tolist() == bucket_mates(keys[:0]).tolist() == []


def test_the_row_of_least_id_stays_and_the_others_name_it(tmp_path, places) -> None:
    lines = (Path(places["wood"]) / "texts.jsonl").read_text().splitlines()
    changed = [line.replace('"}', ' again"}') for line in lines[:10]]
    (Path(places["wood"]) / "texts.jsonl").write_text("\n".join(lines + changed))
    selection = {"policy": "random", "rows": 20, "duplicates": {"similarity": 0.5, "shingle": 4}}
    run = run_of(tmp_path, places, selection)
    chosen = select_corpus(run, print)
    table = Store(chosen.data.corpus).read_table(f"{chosen.folder}/{DECISIONS}").to_pylist()
    dropped = [row for row in table if row["duplicate_of"] is not None]
    assert dropped and all(row["reason"] == "a near duplicate" and not row["copies"] for row in dropped)
    kept = {row["row_id"] for row in table if row["duplicate_of"] is None}
    assert all(row["duplicate_of"] in kept and row["duplicate_of"] < row["row_id"] for row in dropped)
    assert f"of {dropped[0]['duplicate_of']}" in why(chosen, dropped[0]["row_id"])
    assert chosen.record["reasons"]["a near duplicate"] == len(dropped)
    # signatures are gone once rows were compared
    assert not [name for name in Store(run.data.corpus).folders(chosen.record["same"]) if name == "signature"]
