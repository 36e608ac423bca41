"""Layers that are computed again in the backward pass change no number, alone or in a stack."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from shoal.trainables.batches import Shuffled
from shoal.trainables.network import Network
from shoal.trainables.recompute import Recomputing, recompute_parts
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import gated, language


@pytest.mark.parametrize("build", [language, gated])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_members_train_as_ever(build: Callable[..., Any], precision: str, dropout: float) -> None:
    more = {"precision": precision, "dropout": dropout, "accumulate": 2 if dropout else 1}

    def make(again: bool) -> list:
        return [
            build(place, learning_rate=1e-3 * (1 + place), gradient_checkpointing=again, **more)
            for place in range(3)
        ]

    assert all(isinstance(block, Recomputing) for block in make(True)[0].module.blocks)
    assert [member.train(4) for member in make(True)] == [member.train(4) for member in make(False)]
    assert Stack(make(True)).train(4) == Stack(make(False)).train(4)


CALLS: list[int] = []


class Counted(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CALLS.append(1)
        return torch.tanh(self.layer(x))


class Layered(Network):
    by_row = True

    def build(self) -> nn.Module:
        return nn.Sequential(Counted(4), nn.Sequential(Counted(4), Counted(4)), nn.Tanh(), nn.Linear(4, 1))

    def loss(self, module, batch, numbers):
        return mse_loss(module(batch), batch[:, :1], reduction="none").mean(dim=1)

    def score(self, module, rows):
        return -self.loss(module, rows, {}).mean(), {}


def layered(seed: int, again: bool) -> Layered:
    rows = torch.linspace(-1, 1, 64).view(16, 4).numpy()
    recipe = Recipe(steps=9, warmup=1, gradient_checkpointing=again)
    return Layered(recipe, {}, Shuffled(rows, 4, seed), {"validation": rows}, seed)


@pytest.mark.parametrize("again", [False, True])
def test_layers_of_ones_own_are_called_twice_a_step(again: bool) -> None:
    def calls(step: Callable[[], object]) -> int:
        CALLS.clear()
        step()
        return len(CALLS)

    member, layers = layered(0, again), 3
    assert calls(lambda: member.train(1)) == layers * (2 if again else 1)
    stack = Stack([layered(0, again), layered(1, again)])
    assert calls(lambda: stack.train(1)) == layers * (2 if again else 1)
    assert calls(stack.evaluate) == 2 * layers  # held-out rows need no second pass: one for each member


def test_states_are_those_of_the_plain_module() -> None:
    plain, again = layered(0, False), layered(0, True)
    again.train(2)
    plain.load(again.state(), {})
    assert plain.train(2) == again.train(2)


def test_lists_by_hand() -> None:
    # of the outermost list the first, the inner list as one part, and the last have weights
    module = layered(0, False).module
    assert recompute_parts(module) == 3
    assert recompute_parts(nn.Linear(2, 2)) == 0


def test_a_module_without_lists_is_refused() -> None:
    class Bare(Layered):
        def build(self) -> nn.Module:
            return nn.Linear(4, 1)

    with pytest.raises(ValueError, match="gradient_checkpointing needs layers"):
        Bare(Recipe(gradient_checkpointing=True), {}, Shuffled(torch.ones(4, 4).numpy(), 2), {}, 0)
