"""Hashed n-grams by the reference's golden values, and how well DSIR brings a pool near its target."""

import numpy as np
import pytest

from shoal.policies.selection.cuts import RandomRows
from shoal.policies.selection.dsir import Dsir
from shoal.policies.selection.interface import Candidates, select_rows
from shoal.policies.selection.ngrams import (
    bucket_of,
    kl_divergence,
    log_ratios,
    text_buckets,
    token_buckets,
    words_of,
)


def test_texts_are_hashed_as_in_the_reference() -> None:
    assert bucket_of(["alice"], 10_000) == 6720 and bucket_of(["alice", "went"], 10_000) == 114
    known = {}
    assert len(text_buckets("Alice went to the store", 2, 10_000, known)) == 9
    assert known[("alice",)] == 6720
    assert words_of("Don't stop!!") == ["don", "'", "t", "stop", "!!"]


def test_counts_add_up_over_texts_but_for_the_ngrams_across_the_border() -> None:
    known = {}
    one, two, both = (
        np.bincount(text_buckets(text, 2, 500, known), minlength=500) for text in ("a b c", "d e", "a b c d e")
    )
    assert (both - one - two).sum() == 1 and (both >= one + two).all()


def test_ngrams_of_tokens_by_hand() -> None:
    rows = np.array([[5, 6, 5, 6], [6, 5, 6, 5]], np.uint16)
    found = token_buckets(rows, 2, 10**6)
    assert found.shape == (2, 7)
    # words 5 and 6, then the pairs 56 65 56 of the first row and 65 56 65 of the second
    assert found[0, 0] == found[0, 2] == found[1, 1] and found[0, 4] == found[0, 6] == found[1, 5]
    assert found[0, 5] == found[1, 4] != found[0, 4]
    # the same whatever the type of the tokens, and the buckets are used evenly
    assert np.array_equal(found, token_buckets(rows.astype(np.uint32), 2, 10**6))
    counts = np.bincount(token_buckets(np.arange(40_000, dtype=np.uint32)[None], 1, 10)[0], minlength=10)
    assert (np.abs(counts - 4000) < 4 * np.sqrt(40_000 * 0.09)).all()


def test_log_ratios_by_hand() -> None:
    # shares 1/4, 3/4 and 0 in the target, 1/2, 1/4 and 1/4 in the pool
    found = log_ratios(np.array([1, 3, 0]), np.array([2, 1, 1]))
    assert found[:2] == pytest.approx(np.log([0.5, 3.0]), abs=1e-6) and found[2] < -16
    # with a pseudo-count of 1 it is 1/7 of the target
    assert log_ratios(np.array([1, 3, 0]), np.array([2, 1, 1]), 1.0)[2] == pytest.approx(
        np.log(4 / 7), abs=1e-6
    )


def test_what_is_drawn_is_nearer_the_target_than_random_rows() -> None:
    rng, rows, length, vocabulary = np.random.default_rng(0), 4000, 20, 300
    like = rng.random(rows) < 0.25
    p, q = rng.dirichlet(np.full(vocabulary, 0.5)), rng.dirichlet(np.full(vocabulary, 0.5))
    draw = {True: p, False: q}
    tokens = np.stack([rng.choice(vocabulary, length, p=draw[bool(kind)]) for kind in like]).astype(np.uint16)
    target = rng.choice(vocabulary, (400, length), p=p).astype(np.uint16)
    buckets, aimed = token_buckets(tokens, 1, 1000), token_buckets(target, 1, 1000)
    counts = {
        "raw": np.bincount(buckets.ravel(), minlength=1000),
        "target": np.bincount(aimed.ravel(), minlength=1000),
    }
    ratio = log_ratios(counts["target"], counts["raw"])[buckets].sum(axis=1)
    given = Candidates(np.arange(rows), {"log_ratio": ratio}, np.zeros(rows, int), budget=400)
    distance = {}
    for policy in (Dsir(), RandomRows()):
        chosen = select_rows(policy, given).copies > 0
        distance[type(policy)] = kl_divergence(
            counts["target"], np.bincount(buckets[chosen].ravel(), minlength=1000)
        )
    assert distance[Dsir] < 0.3 * distance[RandomRows]
