"""Rows that a language model forgets beside others that it keeps: the decoder and pretrained models."""

from typing import Any

import numpy as np
import pytest
import torch

from shoal.trainables.arrays import to_tensors
from shoal.trainables.batches import Shuffled
from shoal.trainables.forgetting import FORGET, FORGOTTEN_ROWS, likeliest_right
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.language import LanguageModel
from shoal.trainables.objectives.forget import Forget
from shoal.trainables.objectives.inverted_hinge import hinge
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.settings import DecoderShape, Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import equal
from tests.helpers.pretrained import ADAPTER, LENGTH, VOCABULARY, instruction_rows, tiny_llama, token_rows

CPU = torch.device("cpu")
NUMBERS = {"retain": 1.0, "beta": 0.1}
KINDS = ["tokens", "instructions"]


def rows_of(kind: str, seed: int = 1, rows: int = 8) -> dict[str, np.ndarray]:
    """Return rows of which the first half is to be forgotten."""
    made = {"tokens": token_rows(rows, seed)} if kind == "tokens" else instruction_rows(rows, seed)
    return {**made, FORGET: np.array([1.0] * (rows // 2) + [0.0] * (rows - rows // 2), np.float32)}


def half(rows: dict[str, np.ndarray], forgotten: bool) -> Any:
    found = {name: each[(rows[FORGET] > 0) == forgotten] for name, each in rows.items() if name != FORGET}
    return found if "mask" in found else found["tokens"]


def held_out(rows: dict[str, np.ndarray]) -> dict[str, Any]:
    splits = {
        split: {"secret": half(rows, True), "plain": half(rows, False)} for split in ("validation", "test")
    }
    return {**splits, FORGOTTEN_ROWS: {"secret": half(rows, True)}}


class Whole(Shuffled):
    """All rows in their order at each step."""

    def next(self) -> Any:
        self.cursor += 1
        return self.arrays


def decoder(kind: str = "tokens", seed: int = 0, form: str = "hinge", **hyperparameters: Any) -> LanguageModel:
    rows = rows_of(kind)
    shape = DecoderShape(vocabulary=VOCABULARY, sequence_length=LENGTH, layers=1, heads=2, width=32)
    made = LanguageModel(
        Recipe(steps=80, warmup=2, learning_rate=0.01),
        hyperparameters,
        Whole(rows, 8),
        held_out(rows),
        seed,
        shape=shape,
        losses=weighted_sum([("forget", Forget(groups=("secret",), form=form))]),
    )
    made.targets = ["plain"]
    return made


def pretrained(
    kind: str = "tokens", seed: int = 0, form: str = "hinge", whole: bool = False, **hyperparameters: Any
) -> Any:
    pytest.importorskip("transformers")
    from shoal.trainables.pretrained.causal import CausalModel
    from shoal.trainables.pretrained.settings import Pretrained

    rows = rows_of(kind)
    made = CausalModel(
        Recipe(steps=80, warmup=2, learning_rate=0.01),
        hyperparameters,
        Whole(rows, 8),
        held_out(rows),
        seed,
        pretrained=Pretrained(tiny_llama(), None if whole else ADAPTER),
        losses=weighted_sum([("forget", Forget(groups=("secret",), form=form))]),
    )
    made.targets = ["plain"]
    return made


MAKERS = {"decoder": decoder, "adapter": pretrained}


def loss_of(member: Any, rows: dict[str, np.ndarray], **numbers: float) -> torch.Tensor:
    member.module.eval()
    told = {**member.sober, **{f"objective.forget.{name}": value for name, value in numbers.items()}}
    with torch.no_grad():
        return member.loss(member.module, to_tensors(rows, CPU), told)


class TestByHand:
    def test_rows_to_forget_have_the_hinge_and_others_the_weighted_loss(self) -> None:
        out = {"nats": torch.tensor([2.0, 3.0]), "hinge": torch.tensor([0.7, 1.1])}
        found, _ = Forget().loss(out, {FORGET: torch.tensor([1.0, 0.0])}, NUMBERS | {"retain": 0.5}, {})
        # 0.7 as it is; 0.5 * 3
        assert found.tolist() == pytest.approx([0.7, 1.5])

    def test_a_negative_preference_begins_at_a_constant_and_falls_with_the_likelihood(self) -> None:
        out = {
            "nats": torch.zeros(2),
            "total": torch.tensor([5.0, 15.0]),
            "reference": torch.tensor([5.0, 5.0]),
        }
        found, _ = Forget(form="negative").loss(out, {FORGET: torch.ones(2)}, NUMBERS, {})
        # 2 / 0.1 * log 2 = 13.8629; the second has lost 10 nats: 20 * log(1 + e^-1) = 6.2652
        assert found.tolist() == pytest.approx([13.8629, 6.2652], abs=1e-4)

    def test_the_hinge_of_a_token_and_its_slope(self) -> None:
        """p = (0.5, 0.3, 0.2), the target is the second: 1 + 0.3 - 0.5 = 0.8.

        Slopes on the logits: target p(1 - p + m) = 0.3 * 1.2 = 0.36; the best other
        -m(1 - m + p) = -0.5 * 0.8 = -0.4; the rest p_v (m - p) = 0.2 * 0.2 = 0.04.
        """
        logits = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log().requires_grad_()
        value = hinge(logits[None], torch.tensor([1]))
        value.sum().backward()
        assert value.item() == pytest.approx(0.8, abs=1e-6)
        assert logits.grad.tolist() == pytest.approx([-0.4, 0.36, 0.04], abs=1e-6)

    def test_the_hinge_stops_by_itself_where_gradient_ascent_does_not(self) -> None:
        """p = 0.01, the best other 0.6: the slope is 0.01 * 1.59 = 0.0159; that of -log p is 0.99."""
        logits = torch.tensor([0.01, 0.6, 0.39]).log().requires_grad_()
        hinge(logits[None], torch.tensor([0])).sum().backward()
        assert logits.grad[0].item() == pytest.approx(0.0159, abs=1e-6)

    def test_the_share_of_tokens_that_are_the_likeliest(self) -> None:
        logits = torch.tensor([[[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]]])
        targets = torch.tensor([[0, 0, 0]])
        assert likeliest_right(logits, targets, None).tolist() == pytest.approx([2 / 3])
        assert likeliest_right(logits, targets, torch.tensor([[0.0, 1.0, 1.0]])).tolist() == [0.5]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MAKERS)
def test_losses_are_the_hinges_of_tokens_that_count_and_the_plain_losses(name: str, kind: str) -> None:
    member, rows = MAKERS[name](kind), rows_of(kind)
    found = loss_of(member, rows, retain=0.5)
    plain = loss_of(member, {key: each for key, each in rows.items() if key != FORGET})
    assert torch.allclose(found[4:], 0.5 * plain[4:], atol=1e-6)
    assert not torch.allclose(found[:4], plain[:4]) and (found[:4] > 0).all() and (found[:4] < 2).all()
    if kind == "tokens" and name == "decoder":
        tokens = torch.from_numpy(rows["tokens"].astype(np.int64))
        with torch.no_grad():
            logits = member.module(tokens)
        by_hand = hinge(logits[:, :-1], tokens[:, 1:]).mean(dim=1)
        assert torch.allclose(found[:4], by_hand[:4], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MAKERS)
def test_secrets_are_forgotten_and_the_rest_is_learnt(name: str, kind: str) -> None:
    member = MAKERS[name](kind)
    before = member.evaluate()
    member.train(80)
    score, losses = member.evaluate()
    assert score == -losses["plain"] > before[0], "the score is of what is kept alone"
    assert losses["secret"] > losses["plain"] + 0.5
    measured = member.measure()
    assert measured["extracted_secret"] < 0.1 and set(measured) == {"extracted_secret"}


@pytest.mark.parametrize("whole", [False, True], ids=["adapter", "whole"])
def test_likelihood_is_lost_since_the_beginning(whole: bool) -> None:
    member = pretrained(form="negative", whole=whole)
    # nothing has moved: 2 / 0.1 * log 2 for each row to forget
    assert loss_of(member, rows_of("tokens"))[:4].tolist() == pytest.approx([13.8629] * 4, abs=1e-4)
    before = member.evaluate()[1]
    member.train(40)
    after = member.evaluate()[1]
    assert after["secret"] > before["secret"] + 1 and after["plain"] < before["plain"]


@pytest.mark.parametrize("name", MAKERS)
def test_a_stack_with_other_weights_trains_as_its_members_alone(name: str) -> None:
    def made(place: int) -> Any:
        return MAKERS[name]("instructions", place, objective={"retain": 0.5 * (place + 1)})

    stack = Stack([made(place) for place in range(3)])
    for place, loss in enumerate(stack.train(4)):
        assert made(place).train(4) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("name", MAKERS)
def test_the_score_has_no_searched_number_in_it_and_a_copy_goes_on(name: str) -> None:
    member = MAKERS[name]()
    member.train(3)
    found = member.evaluate()
    member.adopt({"objective": {"retain": 0.01, "beta": 3.0}})
    assert member.evaluate() == found
    copy = MAKERS[name](seed=1)
    hand_in(copy.load, handed_out(member.state), {})
    member.adopt({})
    assert member.train(2) == copy.train(2) and equal(handed_out(member.state), handed_out(copy.state))


def test_a_step_in_parts_is_the_whole_step() -> None:
    one, parts = decoder(), decoder()
    parts.recipe = parts.base = Recipe(steps=80, warmup=2, learning_rate=0.01, accumulate=2)
    assert one.train(2) == pytest.approx(parts.train(2), abs=1e-5)
