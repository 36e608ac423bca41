"""Free pages are given back while layers are computed again, and nothing else changes."""

import pytest
import torch

from shoal.trainables import heap
from shoal.trainables.batches import Shuffled
from shoal.trainables.pretrained.causal import CausalModel
from shoal.trainables.pretrained.settings import LowRank, Pretrained
from shoal.trainables.settings import Recipe
from tests.helpers.pretrained import tiny_llama, token_rows


def member(again: bool) -> CausalModel:
    given = Pretrained(tiny_llama(), LowRank(rank=2, alpha=4.0), gradient_checkpointing=again)
    rows, recipe = Shuffled(token_rows(), 4, 0), Recipe(steps=8, warmup=1, learning_rate=0.01)
    return CausalModel(recipe, {}, rows, {"validation": {"chance": token_rows(4)}}, 1, pretrained=given)


@pytest.fixture
def trims(monkeypatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(heap, "malloc_trim", lambda: lambda pad: found.append(pad) or 1)
    return found


def test_two_layers_computed_twice_a_step_are_four_calls(trims) -> None:
    made = member(again=True)
    made.train(1)
    assert trims == [0]
    made.train(3)
    assert trims == [0] * 4


def test_weights_are_the_same_bit_for_bit(trims, monkeypatch) -> None:
    ours = member(again=True)
    ours.train(4)
    assert len(trims) == 4
    monkeypatch.setattr(heap, "malloc_trim", lambda: None)
    theirs = member(again=True)
    theirs.train(4)
    found, expected = (
        {name: weight.detach() for name, weight in each.weights().items()} for each in (ours, theirs)
    )
    assert len(found) == 8 and all(torch.equal(found[name], expected[name]) for name in expected)


def test_no_other_device_and_no_other_library_is_touched(monkeypatch) -> None:
    monkeypatch.setattr(heap, "malloc_trim", lambda: None)
    made = member(again=True)
    made.train(1)
    assert not any(
        getattr(getattr(part, "_gradient_checkpointing_func", None), "func", None) is heap.checkpoint_trimmed
        for part in made.module.modules()
    )
    elsewhere = torch.nn.Linear(2, 2, device="meta")
    elsewhere._gradient_checkpointing_func = before = lambda *given: None
    monkeypatch.setattr(heap, "malloc_trim", lambda: lambda pad: 1)
    heap.give_holes_back(elsewhere)
    assert elsewhere._gradient_checkpointing_func is before
