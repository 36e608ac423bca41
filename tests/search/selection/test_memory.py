"""A selection's memory: what does not grow with a pool or a file, and what is given back in time."""

import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from shoal.cluster.storage import Store
from shoal.search.config.selection import Duplicates, NgramScore
from shoal.search.selection import corpora, scorers, select, stages
from shoal.search.selection.duplicates import bands_of, minhash_library, shingles
from shoal.search.selection.interface import Scoring
from shoal.search.selection.scorers import bucket_counts, open_scorer
from shoal.search.selection.shown import places_among
from tests.house.test_layers import ROOT
from tests.search.selection.test_select import dsir, places, run_of

__all__ = ["places"]  # a fixture

NGRAMS = NgramScore(kind="ngrams", buckets=500)
MEBIBYTE = 1 << 20


def held_by(made: Callable[[], Any]) -> int:
    """Return the most bytes that numpy and Python hold while something is made."""
    tracemalloc.start()
    made()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def token_file(rows: int, length: int = 512) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, length)).astype(np.uint16)


def instructions(rows: int) -> np.ndarray:
    found = np.zeros(rows, [("tokens", np.uint16, 64), ("mask", np.uint8, 64), ("segment", np.uint8, 64)])
    found["tokens"] = token_file(rows, 64)
    found["segment"] = np.arange(64) // 20 + 1
    return found


def test_an_actor_that_counts_ngrams_or_signs_rows_has_no_torch() -> None:
    names = [f"shoal.search.selection.{name}" for name in ("scoring", "stages", "duplicates")]
    program = f"import sys, {', '.join(names)}; print({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_file_of_four_times_the_rows_takes_no_more_to_score_or_count() -> None:
    score = open_scorer(Scoring(NGRAMS, "selection.scores.0", 512, fitted=np.linspace(-1, 1, 500)[None]))
    few, many = token_file(1024), token_file(4096)

    def scored(rows: np.ndarray) -> Any:
        return score(rows, np.arange(len(rows)))

    for made in (scored, counted):
        small, large = held_by(partial(made, few)), held_by(partial(made, many))
        # what is returned of a row, and what it is put together from, are 64 bytes at most
        assert large - small <= 64 * (len(many) - len(few)) + MEBIBYTE
        assert large < 32 * MEBIBYTE


def counted(rows: np.ndarray) -> np.ndarray:
    return bucket_counts(rows, NGRAMS, "selection.scores")


@pytest.mark.parametrize("rows", [token_file(50, 64), instructions(50), token_file(50, 64)[:0]])
def test_rows_in_parts_have_the_same_scores_and_counts_bit_for_bit(rows, monkeypatch) -> None:
    def found() -> list[np.ndarray]:
        ratios = np.random.default_rng(1).normal(size=(2, 500))
        columns = open_scorer(Scoring(NGRAMS, "s", 64, fitted=ratios))(rows, np.arange(len(rows)))
        return [columns["log_ratio"], columns["length"], counted(rows)]

    whole = found()
    monkeypatch.setattr(corpora, "TOKENS_AT_ONCE", 7 * 64)
    parts = len(list(scorers.bucket_parts(*scorers.counted_texts(rows, "s"), NGRAMS)))
    assert parts == max(1, -(-len(rows) // 7))
    for one, other in zip(whole, found(), strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)


@pytest.mark.parametrize("rows", [token_file(20, 64), instructions(20)])
def test_rows_in_parts_have_the_same_signatures(rows, monkeypatch) -> None:
    pytest.importorskip("datasketch")
    from shoal.search.selection.duplicates import Signer, minhash

    settings, library = Duplicates(shingle=4), minhash_library()
    monkeypatch.setattr(corpora, "TOKENS_AT_ONCE", 7 * 64)
    tokens, segment = scorers.counted_texts(rows, "s")
    signer = Signer("corpus", "folder", settings, bands_of(library, settings))
    found = [signer.signed(tokens, segment, part) for part in corpora.parts_of(tokens)]
    whole = [minhash(library, each, settings) for each in shingles(tokens, 4, segment)]
    assert len(found) == 3 and np.array_equal(np.concatenate(found), whole)


def test_a_few_rows_are_found_among_many_places_by_a_few_bytes_a_row() -> None:
    count = 1 << 22
    some = np.random.default_rng(0).permutation(count).astype(np.uint32)
    wanted = [0, 5, count - 1]
    assert places_among(some, wanted).tolist() == sorted(np.flatnonzero(np.isin(some, wanted)).tolist())
    assert held_by(partial(places_among, some, wanted)) < count


def test_decisions_are_gone_once_written_and_memory_is_given_back(tmp_path, places, monkeypatch) -> None:
    left, given, decide, kl = [], [], select.decide_pool, select.kl_to_target

    def decided(*arguments: Any) -> Any:
        found = decide(*arguments)
        left.extend(weakref.ref(each) for each in (found.ids, found.selected.margin, found.places))
        return found

    def compared(*arguments: Any) -> Any:
        assert len(left) == 3 and [each() for each in left] == [None] * 3
        return kl(*arguments)

    monkeypatch.setattr(select, "decide_pool", decided)
    monkeypatch.setattr(select, "kl_to_target", compared)
    monkeypatch.setattr(stages, "malloc_trim", lambda: given.append)
    chosen = select.select_corpus(run_of(tmp_path, places, dsir(places)), print)
    assert chosen.record["kl"]["like"] and given == [0] * 5
    assert Store(chosen.data.corpus).exists(chosen.folder)


def test_an_actor_gives_memory_back_after_each_file(monkeypatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(stages, "malloc_trim", lambda: given.append)
    stages.StageWorker(lambda: len)({"file": np.array(["a", "ab", "abc"], object)})
    assert given == [0, 0, 0]
    monkeypatch.setattr(stages, "malloc_trim", lambda: None)  # another C library has none
    stages.give_memory_back()
