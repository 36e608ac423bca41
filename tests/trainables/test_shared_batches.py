"""A stack whose members are at the same place of the same rows draws once for all of them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shoal.policies.mixing import normalise
from shoal.search.corpus.batches import MixedBatches
from shoal.trainables.batches import Shuffled, alike
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from shoal.trainables.vmap_on_cpu import Linear, linear_layers
from tests.helpers.members import POINTS, Points, language
from tests.trainables.test_stack import assert_close

_rng = np.random.default_rng(0)
ROWS = _rng.normal(size=(64, 6)).astype(np.float32), _rng.integers(0, 3, 64)
WIDE = _rng.normal(size=(64, 40)).astype(np.float32), _rng.integers(0, 3, 64)


class Counted(Shuffled):
    """Says of itself what `Shuffled` says, and counts its draws."""

    drawn = 0

    def next(self) -> Any:
        self.drawn += 1
        return super().next()

    def alike(self, other: Any) -> bool:
        return (self.seed, self.cursor) == (other.seed, other.cursor)


def points(place: int, batches: Any) -> Points:
    recipe = Recipe(steps=60, warmup=4)
    return Points(recipe, {"learning_rate": 1e-3 * (1 + place)}, batches, POINTS, place)


def test_one_draws_for_all_and_all_are_where_they_would_be() -> None:
    stack, alone = ([points(place, Counted(ROWS, 8)) for place in range(3)] for _ in range(2))
    team = Stack(stack)
    for member in stack:
        member.batches.drawn = 0
    for steps in (5, 13):  # 8 batches an epoch
        team.train(steps)
        for member in alone:
            member.train(steps)
    assert [member.batches.drawn for member in stack] == [18, 0, 0]
    for one, other in zip(stack, alone, strict=True):
        assert one.batches.state() == {"cursor": 18, "seed": 0}
        assert_close(one.state(), other.state())
    stack[2].train(7)  # by itself: in the order of the third epoch
    alone[2].train(7)
    assert_close(stack[2].state(), alone[2].state())


@pytest.mark.parametrize("cursors, seeds", [((0, 3, 0), (0, 0, 0)), ((0, 0, 0), (0, 0, 1))])
def test_members_at_other_rows_draw_for_themselves(cursors: tuple[int, ...], seeds: tuple[int, ...]) -> None:
    stack, alone = (
        [points(place, Shuffled(ROWS, 8, seed)) for place, seed in enumerate(seeds)] for _ in range(2)
    )
    for place, cursor in enumerate(cursors):
        for member in (stack[place], alone[place]):
            member.batches.load({"cursor": cursor, "seed": seeds[place]})
    Stack(stack).train(9)
    for one, other in zip(stack, alone, strict=True):
        other.train(9)
        assert_close(one.state(), other.state())


class TestAlike:
    def test_shuffled_rows(self) -> None:
        first, same = Shuffled(ROWS, 8, seed=3), Shuffled(tuple(part[:] for part in ROWS), 8, seed=3)
        assert alike([first]) and alike([first, same])
        same.next()
        assert not alike([first, same])
        first.next()
        assert alike([first, same])
        equal = Shuffled(tuple(part.copy() for part in ROWS), 8, seed=3)
        equal.next()
        assert not alike([first, equal])  # values are not looked at
        assert not alike([first, first])  # one cursor for two: they would draw in turns
        tensors = [Shuffled({"x": torch.from_numpy(ROWS[0])[places:]}, 8) for places in (0, 0, 1)]
        assert alike(tensors[:2]) and not alike(tensors)

    def test_what_is_derived_tells_for_itself_or_not_at_all(self) -> None:
        class Turned(Shuffled):
            def next(self) -> Any:
                return np.flip(super().next(), axis=1)

        assert not alike([Shuffled(ROWS[0], 8), Turned(ROWS[0], 8)])
        assert not alike([Turned(ROWS[0], 8), Turned(ROWS[0], 8)])
        assert not alike([member.batches for member in (language(0), language(1))])

    def test_mixtures(self) -> None:
        class Rows:
            def take(self, cursor: int, count: int) -> np.ndarray:
                return np.full((count, 4), cursor, dtype=np.uint16)

        streams = {"code": Rows(), "law": Rows()}
        first, same, other = (
            MixedBatches(streams, normalise(shares), 8) for shares in ([2, 1], [2, 1], [1, 1])
        )
        assert alike([first, same]) and not alike([first, other])
        assert not alike([first, MixedBatches({"code": Rows(), "law": Rows()}, normalise([2, 1]), 8)])
        assert np.array_equal(first.next(), same.next()) and alike([first, same])
        same.next()
        assert not alike([first, same])
        first.load(same.state())
        assert alike([first, same]) and np.array_equal(first.next(), same.next())


class Perceptron(Network):
    """More features than rows, so that the gradients of linear layers are laid out by `Linear`."""

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(40, 20), nn.ReLU(), nn.Unflatten(1, (4, 5)), nn.Flatten(), nn.Linear(20, 3)
        )

    def loss(self, module: nn.Module, batch: Any, numbers: Any) -> torch.Tensor:
        logits = module(batch[0])
        return cross_entropy(logits.view(-1).view(-1, 3), batch[1])  # views need what lies in order

    def score(self, module: nn.Module, rows: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return (module(rows[0]).argmax(dim=-1) == rows[1]).double().mean(), {}


def perceptron(place: int, seed: int) -> Perceptron:
    held_out = {"validation": WIDE}
    rates = {"learning_rate": 1e-3 * (1 + place), "clip": 0.5 + place}
    return Perceptron(Recipe(steps=60, warmup=4), rates, Shuffled(WIDE, 8, seed), held_out, place)


@pytest.mark.parametrize("seeds", [(0, 0, 0), (0, 1, 2)], ids=["the same rows", "others"])
def test_linear_layers_of_few_rows(seeds: tuple[int, ...]) -> None:
    stack, alone = ([perceptron(place, seed) for place, seed in enumerate(seeds)] for _ in range(2))
    losses = Stack(stack).train(20)
    assert losses == pytest.approx([member.train(20) for member in alone], abs=1e-5)
    for one, other in zip(stack, alone, strict=True):
        assert_close(one.state(), other.state())
    assert {type(part) for part in stack[0].module if len(list(part.parameters()))} == {nn.Linear}


def test_linear_layers_are_what_they_were_also_after_an_error() -> None:
    class Derived(nn.Linear):
        pass

    module, device = nn.Sequential(nn.Linear(4, 2), Derived(2, 2)), torch.device("cpu")
    with pytest.raises(ZeroDivisionError), linear_layers(module, device):
        assert [type(part) for part in module] == [Linear, Derived]
        raise ZeroDivisionError
    assert [type(part) for part in module] == [nn.Linear, Derived]
    x = torch.randn(3, 4)
    expected = torch.autograd.grad(module[0](x).square().sum(), module[0].weight)
    with linear_layers(module, device):
        found = torch.autograd.grad(module[0](x).square().sum(), module[0].weight)
    assert torch.allclose(found[0], expected[0], atol=1e-6)
