"""Heads that look facts up: found by hand-made attention, and replaced by attention to all tokens alike."""

import numpy as np
import pytest
import torch

from shoal.trainables.decoder import Decoder, initialise
from shoal.trainables.retrieval_heads import (
    Probe,
    attending_to_all,
    best_heads,
    copied_shares,
    heads_watched,
    most_attended,
    retrieval_scores,
    running_mean,
)
from shoal.trainables.scoring import logits_of, row_losses
from shoal.trainables.settings import DecoderShape
from tests.helpers.pretrained import tiny_llama, token_rows

ROWS = token_rows(6)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    found = Decoder(DecoderShape(vocabulary=64, sequence_length=12, layers=2, heads=4, width=16))
    initialise(found, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in found.parameters():
            weight.mul_(10)
    return found.eval()


@pytest.fixture(scope="module")
def llama():
    pytest.importorskip("transformers")
    from shoal.trainables.pretrained.folder import judging_model

    return judging_model(tiny_llama(), "AutoModelForCausalLM", "cpu")


@pytest.fixture(params=["decoder", "llama"])
def model(request):
    return request.getfixturevalue(request.param)


def test_what_is_copied_by_hand() -> None:
    # the value 7 8 7 stands at 2, 3, 4 and is asked for at the end
    probe = Probe(np.array([1, 2, 7, 8, 7, 3, 2, 7, 8, 7]), slice(2, 5), slice(7, 10))
    places = np.array(
        [
            [2, 3, 4],  # each token of the value where it stands: both different tokens are copied
            [2, 2, 2],  # 7 and then 7 where 8 is wanted: one of two
            [0, 0, 0],  # never within the value
            [4, 3, 7],  # the last 7 is not the value's own, but 7 was copied before
        ]
    )
    assert copied_shares(probe, places).tolist() == [1.0, 0.5, 0.0, 1.0]


def test_no_place_that_comes_later_is_attended_to() -> None:
    # the query looks along the first axis; keys grow with the place, so the last visible one is the largest
    k = torch.arange(5.0).view(1, 1, 5, 1)
    q = torch.ones(1, 1, 5, 1)
    assert most_attended(q, k, slice(1, 4)).tolist() == [[[1, 2, 3]]]
    assert most_attended(-q, k, slice(1, 4)).tolist() == [[[0, 0, 0]]]


def test_the_best_share_of_heads_is_one_at_least() -> None:
    scores = np.array([[0.1, 0.9], [0.9, 0.3]])
    assert best_heads(scores, 0.01) == [(0, 1)]
    assert best_heads(scores, 0.5) == [(0, 1), (1, 0)]


def test_a_running_mean_is_attention_with_equal_weights() -> None:
    values = torch.randn(2, 3, 5, 4)
    weights = torch.ones(5, 5).tril() / torch.arange(1, 6)[:, None]
    assert torch.allclose(running_mean(values), weights @ values, atol=1e-6)


def test_without_heads_nothing_changes_and_afterwards_nothing_is_left(model) -> None:
    before = row_losses(model, ROWS)
    with attending_to_all(model, []):
        assert row_losses(model, ROWS).tolist() == before.tolist()
    with attending_to_all(model, [(0, 1), (1, 3)]):
        changed = row_losses(model, ROWS)
    assert np.abs(changed - before).max() > 1e-3
    assert row_losses(model, ROWS).tolist() == before.tolist()


def test_heads_that_attend_to_all_see_nothing_that_comes_later(model) -> None:
    rows = torch.from_numpy(ROWS.astype(np.int64))
    other = rows.clone()
    other[:, 8:] = 5
    with torch.no_grad(), attending_to_all(model, [(0, 0), (1, 2)]):
        first, second = logits_of(model, rows), logits_of(model, other)
    assert torch.allclose(first[:, :8], second[:, :8], atol=1e-5)


def test_only_the_named_heads_give_the_mean_of_their_values(model) -> None:
    given, seen = [], []

    def watch(layer, q, k, v, output):
        given.append((layer, v, output))
        return output

    tokens = torch.from_numpy(ROWS[:2].astype(np.int64))
    with torch.no_grad(), heads_watched(model, watch):
        logits_of(model, tokens)
    assert [layer for layer, _, _ in given] == [0, 1] and given[0][2].shape == given[0][1].shape == (
        2,
        4,
        12,
        4,
    )
    with (
        torch.no_grad(),
        attending_to_all(model, [(0, 2)]),
        heads_watched(model, lambda *all: seen.append(all) or all[-1]),
    ):
        logits_of(model, tokens)
    wanted = running_mean(given[0][1][:, 2])
    if isinstance(model, Decoder):  # of transformers' attention only one can be registered at a time
        assert torch.allclose(seen[0][4][:, 2], wanted, atol=1e-6)
        assert torch.equal(seen[0][4][:, 1], given[0][2][:, 1])


def test_a_head_that_finds_what_came_after_the_same_token_scores_one(decoder) -> None:
    probe = Probe(np.array([1, 2, 7, 8, 9, 3, 2, 7, 8, 9]), slice(2, 5), slice(7, 10))

    found = retrieval_scores(decoder, [probe, probe])
    assert found.shape == (2, 4) and ((found >= 0) & (found <= 1)).all()
    tokens, keys = probe.tokens, torch.zeros(1, 1, 10, 10)
    keys[0, 0, np.arange(1, 10), tokens[:-1]] = 1.0  # a key holds the token before it
    queries = torch.zeros(1, 1, 10, 10)
    queries[0, 0, np.arange(10), tokens] = 1.0
    places = most_attended(queries, keys, slice(6, 9))[0].numpy()
    assert copied_shares(probe, places).tolist() == [1.0]
