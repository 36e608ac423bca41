"""A stack whose loss and gradients torch compiles trains as one that is not compiled, and is compiled once."""

from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from shoal.search.worker.teams import SMALL, teams
from shoal.trainables import stacked_loss
from shoal.trainables.settings import DecoderShape
from shoal.trainables.stack import Stack
from tests.helpers.members import Points, language, points
from tests.trainables.test_stack import assert_close, make, numbers

NAMES = ("points-adamw", "decoder-adamw", "experts-adamw")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a count of what was compiled; the backend traces as inductor's does, and then runs torch's own."""
    monkeypatch.setattr(stacked_loss, "BACKEND", "aot_eager")
    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


def check_equal(name: str) -> Stack:
    plain, compiled = Stack(make(name)), Stack(make(name), compile=True)
    for steps in (1, 20):
        assert compiled.train(steps) == pytest.approx(plain.train(steps), abs=1e-5)
    for one, other in zip(plain.members, compiled.members, strict=True):
        assert_close(one.state(), other.state())
    return compiled


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_as_without_and_compiles_once(name: str, graphs: Any) -> None:
    def given(place: int) -> dict[str, float]:
        cooling = {"gate_start": 2.0 + place, "gate_end": 0.1 + place, "gate_balance": 0.1 * place}
        return numbers(place) | (cooling if name.startswith("experts") else {})

    stack = check_equal(name)
    assert graphs() == 1
    stack.gather([0, 0, 2], [given(0), given(7), given(2)])
    stack.train(2)
    stack.gather([0, 1, 2], [given(0)] * 3)  # all the same numbers now
    stack.train(2)
    stack.evaluate()
    stack.members[1].load(stack.members[2].state(), given(5))
    stack.train(2)
    assert graphs() == 1


def test_members_of_the_same_rows_and_of_others_share_what_is_compiled(graphs: Any) -> None:
    stack = Stack([points(0, learning_rate=rate) for rate in (0.1, 0.2)], compile=True)
    stack.train(2)
    stack.members[1].batches.next()
    stack.train(2)
    assert graphs() == 1


def test_each_member_drops_out_others(graphs: Any) -> None:
    def train() -> list[float]:
        return Stack([points(7, dropout=rate) for rate in (0.5, 0.5, 0.0)], compile=True).train(3)

    losses = train()
    assert len(set(losses)) == 3 and losses == train()


def test_members_that_are_to_be_compiled_are_stacked() -> None:
    found = {place: language(place, DecoderShape(31, 12, 2, 2, 128)) for place in range(2)}
    assert sum(weight.numel() for weight in found[0].weights().values()) > SMALL
    assert [len(teams(found, *chosen)) for chosen in ((None,), (None, True), (False, True))] == [2, 1, 2]


class Torn(Points):
    """Its loss cannot be one graph."""

    def loss(self, module: Any, batch: Any, numbers: Any) -> torch.Tensor:
        torch._dynamo.graph_break()
        return super().loss(module, batch, numbers)


def test_what_cannot_be_compiled_ends_the_run_and_says_what_to_do(graphs: Any) -> None:
    def torn() -> Torn:
        like = points(0)
        return Torn(like.base, {"learning_rate": 0.1}, like.batches, like.held_out, 0)

    (team,) = teams({0: torn()}, stack=True)
    assert not team.train(2)[0].error
    (team,) = teams({0: torn()}, stack=True, compile=True)
    with pytest.raises(stacked_loss.CompileError, match=r"set cluster\.compile: false"):
        team.train(2)


@pytest.mark.slow  # half a minute each
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_as_without_by_inductor(name: str) -> None:
    check_equal(name)
