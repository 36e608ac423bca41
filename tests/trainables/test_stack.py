import math

import numpy as np
import pytest
import torch

from shoal.trainables.optimise import OPTIMISERS, AdamW, clip, clip_divisors
from shoal.trainables.settings import DecoderShape
from shoal.trainables.stack import Stack, stackable, stacks
from shoal.trainables.toy import Toy
from tests.helpers.members import SHAPE, Points, equal, gated, language, points

KINDS = ("decoder-adamw", "decoder-sgd", "experts-adamw", "points-adamw", "points-sgd")
MAKERS = {"decoder": language, "experts": gated, "points": points}


def numbers(place: int) -> dict[str, float]:
    """Every searched number, another one for each member; no dropout, so that two ways can be compared."""
    return {
        "learning_rate": 1e-3 * (1 + place),
        "weight_decay": 0.2 * place,
        "beta1": 0.9 - 0.1 * place,
        "beta2": 0.999 - 0.02 * place,
        "momentum": 0.9 - 0.1 * place,
        "label_smoothing": 0.1 * place,
        "z_loss": 1e-3 * place,
        "clip": 0.3 + 0.4 * place,
        "warmup": 2 + 3 * place,
        "final_rate": 0.1 * place,
    }


def make(name: str, count: int = 3, ages: tuple[int, ...] = (0, 0, 0), **more) -> list:
    build, _, kind = name.partition("-")
    members = [MAKERS[build](place, kind=kind, **numbers(place) | more) for place in range(count)]
    for member, age in zip(members, ages, strict=False):
        member.train(age) if age else None
    return members


def assert_close(first, second) -> None:
    """Assert that two states differ by float32's rounding alone."""
    assert equal(first["batches"], second["batches"]) and equal(first["random"], second["random"])
    assert first["trained"] == second["trained"]
    for name, array in first["weights"].items():
        assert np.allclose(array, second["weights"][name], atol=1e-5, rtol=1e-5), name
    assert first["optimiser"].keys() == second["optimiser"].keys()
    for index, slots in first["optimiser"].items():
        assert slots.keys() == second["optimiser"][index].keys()
        for name, array in slots.items():
            assert np.allclose(array, second["optimiser"][index][name], atol=1e-5, rtol=1e-4), name


@pytest.mark.parametrize("ages", [(0, 0, 0), (5, 0, 11)], ids=["new", "of different ages"])
@pytest.mark.parametrize("steps", [1, 20])
@pytest.mark.parametrize("name", KINDS)
class TestAgainstMembersAlone:
    def test_a_stack_trains_as_they_do(self, name: str, steps: int, ages: tuple[int, ...]) -> None:
        alone, stacked = make(name, ages=ages), make(name, ages=ages)
        stack = Stack(stacked)
        assert stack.train(steps) == pytest.approx([member.train(steps) for member in alone], abs=1e-5)
        for one, other in zip(alone, stacked, strict=True):
            assert_close(one.state(), other.state())

    def test_and_judges_as_they_do(self, name: str, steps: int, ages: tuple[int, ...]) -> None:
        members = make(name, ages=ages)
        stack = Stack(members)
        stack.train(steps)
        assert stack.evaluate() == [member.evaluate() for member in members]
        for (score, losses), member in zip(stack.evaluate_together("validation"), members, strict=True):
            own_score, own_losses = member.evaluate()
            assert score == pytest.approx(own_score, abs=1e-5) and losses == pytest.approx(own_losses, abs=1e-5)


@pytest.mark.parametrize("name", ["decoder-adamw", "points-sgd"])
class TestStack:
    def test_one_that_diverges_leaves_the_others_alone(self, name: str) -> None:
        stack, healthy = Stack(make(name)), Stack(make(name))
        lost = next(iter(stack.members[1].weights().values()))
        with torch.no_grad():
            lost.fill_(math.nan)
        losses, expected = stack.train(5), healthy.train(5)
        assert math.isnan(losses[1]) and losses[0::2] == expected[0::2]
        for place in (0, 2):
            assert equal(stack.members[place].state(), healthy.members[place].state())

    def test_a_copy_leaves_the_other_rows_alone(self, name: str) -> None:
        stack = Stack(make(name))
        stack.train(3)
        before = [member.state() for member in stack.members]
        stack.gather([0, 0, 2], [numbers(0), numbers(7), numbers(2)])
        after = [member.state() for member in stack.members]
        assert equal(after, [before[0], before[0], before[2]])
        assert stack.members[1].hyperparameters == numbers(7)
        stack.gather([0, 1, 2], [numbers(0), numbers(7), numbers(2)])
        assert equal([member.state() for member in stack.members], after)

    def test_copies_are_of_one_snapshot(self, name: str) -> None:
        stack = Stack(make(name))
        stack.train(3)
        before = [member.state() for member in stack.members]
        stack.gather([1, 2, 0], [numbers(place) for place in range(3)])
        assert equal([member.state() for member in stack.members], [before[1], before[2], before[0]])

    def test_a_clone_goes_on_as_its_donor(self, name: str) -> None:
        stack = Stack(make(name, ages=(4, 9, 0)))
        stack.train(3)
        stack.gather([0, 0, 2], [numbers(0), numbers(0), numbers(2)])
        losses = stack.train(5)
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
        assert_close(stack.members[0].state(), stack.members[1].state())

    def test_states_travel_between_a_stack_and_members_alone(self, name: str) -> None:
        stack, alone = Stack(make(name)), make(name)
        stack.train(4)
        alone[0].load(stack.members[1].state(), numbers(1))
        alone[0].train(4)
        stack.members[2].load(alone[0].state(), numbers(1))
        stack.train(4)
        alone[0].train(4)
        assert_close(stack.members[2].state(), alone[0].state())

    def test_a_member_may_train_alone_in_between(self, name: str) -> None:
        stack, alone = Stack(make(name)), make(name)
        stack.train(3)
        stack.members[1].train(2)
        stack.train(3)
        alone[1].train(8)
        assert_close(stack.members[1].state(), alone[1].state())

    @pytest.mark.parametrize("rates", [(0.5, 0.5, 0.5), (0.0, 0.5, 0.3)], ids=["one rate", "three rates"])
    def test_each_member_drops_out_others(self, name: str, rates: tuple[float, ...]) -> None:
        def train() -> list[float]:
            members = [MAKERS[name.partition("-")[0]](7, dropout=rate) for rate in rates]
            return Stack(members).train(3)

        losses = train()
        assert len(set(losses)) == 3 and losses == train()
        if rates[0] == 0:
            alone = MAKERS[name.partition("-")[0]](7, dropout=0.0)
            assert losses[0] == pytest.approx(alone.train(3), abs=1e-5)


def test_members_that_differ_are_put_into_stacks_of_their_own() -> None:
    wide, heads = DecoderShape(31, 12, 2, 2, 32), DecoderShape(31, 12, 2, 4, 16)
    members = {
        3: language(0),
        1: language(1, learning_rate=0.1),
        4: language(0, shape=wide),
        5: language(0, shape=heads),  # the same weights, used otherwise
        6: language(0, kind="sgd"),
        7: language(0, batch=2),
        8: Toy({"h0": 1.0, "h1": 0.0}),
        9: Toy({"h0": 1.0, "h1": 0.0}),
        2: language(2, shape=SHAPE),
        0: points(0),
    }
    assert stacks(members) == [[3, 1, 2], [4], [5], [6], [7], [8], [9], [0]]
    assert stackable(members[3], members[1]) and not stackable(members[3], members[4])
    assert members[3].batches.cursor == 0
    with pytest.raises(ValueError, match="stackable"):
        Stack([members[3], members[4]])


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_weights_of_another_type(kind: torch.dtype) -> None:
    class Typed(Points):
        def build(self):
            return super().build().to(kind)

        def loss(self, module, batch, numbers):
            return super().loss(module, (batch[0].to(kind), batch[1]), numbers)

    def build(place: int) -> Typed:
        like = points(place)
        return Typed(like.base, {"learning_rate": 0.01 * (1 + place), "clip": 0.5}, like.batches, {}, place)

    stack, alone = ([build(place) for place in range(2)] for _ in range(2))
    close = {"abs": 1e-5} if kind == torch.float64 else {"rel": 0.05}
    assert Stack(stack).train(20) == pytest.approx([member.train(20) for member in alone], **close)


def columns(**values: float) -> dict[str, torch.Tensor]:
    return {name: matrix(value) for name, value in values.items()}


def matrix(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_an_adamw_step_by_hand() -> None:
    weights, gradients = matrix(2.0), matrix(0.5)
    slots = {"exp_avg": matrix(0.1), "exp_avg_sq": matrix(0.04)}
    given = columns(rate=0.1, age=2, weight_decay=0.5, beta1=0.9, beta2=0.75)
    OPTIMISERS["adamw"].update(weights, gradients, slots, OPTIMISERS["adamw"].factors(given), decayed=1)
    # mean 0.9 * 0.1 + 0.1 * 0.5 = 0.14, square 0.75 * 0.04 + 0.25 * 0.25 = 0.0925
    # corrected by 1 - 0.81 = 0.19 and 1 - 0.5625 = 0.4375; decay 2 * (1 - 0.05) = 1.9
    assert slots["exp_avg"].item() == pytest.approx(0.14) and slots["exp_avg_sq"].item() == pytest.approx(
        0.0925
    )
    expected = 1.9 - 0.1 * (0.14 / 0.19) / (math.sqrt(0.0925 / 0.4375) + 1e-8)
    assert weights.item() == pytest.approx(expected, abs=1e-12)


def test_a_momentum_step_by_hand() -> None:
    weights, gradients = matrix(2.0, 2.0), matrix(0.5, 0.5)
    slots = {"momentum_buffer": matrix(1.0, 1.0)}
    given = columns(rate=0.1, age=2, weight_decay=0.25, momentum=0.9)
    OPTIMISERS["sgd"].update(weights, gradients, slots, OPTIMISERS["sgd"].factors(given), decayed=1)
    # the first decays: velocity 0.9 + 0.5 + 0.25 * 2 = 1.9; the second: 0.9 + 0.5 = 1.4
    assert slots["momentum_buffer"].tolist() == [pytest.approx([1.9, 1.4])]
    assert weights.tolist() == [pytest.approx([1.81, 1.86])]


def test_each_members_gradients_are_clipped_by_their_own_norm() -> None:
    gradients = torch.tensor([[3.0, 4.0], [0.3, 0.4], [6.0, 8.0]])
    clip(gradients, torch.tensor([[1.0], [1.0], [20.0]]))
    assert torch.allclose(gradients, torch.tensor([[0.6, 0.8], [0.3, 0.4], [6.0, 8.0]]), atol=1e-5)


def test_a_member_by_itself_steps_as_it_does_in_the_matrices() -> None:
    optimiser, rng = AdamW(), np.random.default_rng(0)
    given = {
        "rate": [0.1, 0.01],
        "age": [3, 1],
        "weight_decay": [0.2, 0.0],
        "beta1": [0.9, 0.8],
        "beta2": [0.99, 0.999],
    }
    together = [torch.from_numpy(rng.normal(size=(2, 40)).astype(np.float32)) for _ in range(4)]
    together[3].square_()
    alone = [each.clone() for each in together]
    weights, gradients, *slots = together
    limits = torch.tensor([1.0, 100.0])  # the norms are about 6
    assert (clip_divisors([gradients], limits) > 1).tolist() == [True, False]
    table = {name: torch.tensor(values, dtype=torch.float64)[:, None] for name, values in given.items()}
    factors = {name: values.float() for name, values in optimiser.factors(table).items()}
    parts = [each.split([18, 12, 10], dim=1) for each in alone]  # three weights, of which two decay
    for row, divisor in enumerate(clip_divisors(parts[1], limits)):
        weights_of, gradients_of, *slots_of = ([part[row] for part in each] for each in parts)
        numbers = {name: float(values[row]) for name, values in given.items()}
        named = dict(zip(optimiser.slots, slots_of, strict=True))
        optimiser.update_one(weights_of, named, gradients_of, numbers, 2, divisor)
    clip(gradients, limits[:, None])
    optimiser.update(weights, gradients, dict(zip(optimiser.slots, slots, strict=True)), factors, decayed=30)
    for place in (0, 2, 3):
        assert torch.allclose(together[place], alone[place], atol=1e-6)
