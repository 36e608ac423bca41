"""Super-networks in training: whom they learn from, what a step adds up, and what the teacher costs."""

import numpy as np
import pytest
import torch

from shoal.search.worker.teams import teams
from shoal.trainables.distill.elastic import extract
from shoal.trainables.distill.encoder import ElasticEncoder
from shoal.trainables.distill.relations import relation_loss, relations
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.spaces import ElasticShape, SubSpace, sandwich
from shoal.trainables.distill.supernet import DistillRecipe, Relation, SuperNetwork
from shoal.trainables.distill.teachers import Teacher
from shoal.trainables.stack import stacks
from tests.helpers.members import HELD_OUT, SPACE, Rows, encoder, supernet


def test_a_network_like_its_teacher_has_nothing_to_learn() -> None:
    origin = encoder(7)
    space = SubSpace((3,), (2,), (24,), (2.0,), layers=3, head_width=8)
    member = SuperNetwork(
        space, origin, SharedTeacher(Teacher(encoder(7))), Relation(4), DistillRecipe(), {}, Rows(), HELD_OUT, 0
    )
    assert member.evaluate()[0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_step_adds_up_the_gradients_of_its_sub_networks(share: float) -> None:
    member = supernet(inplace=share, clip=1e9)
    alone = extract(member.module, SPACE.whole)
    tokens = torch.from_numpy(Rows().next().astype(np.int64))
    target = member.teacher.see(tokens).relations
    largest = None
    for subnet in sandwich(SPACE, np.random.default_rng([0, 0])):
        seen = relations(alone(tokens, None, subnet))
        loss = relation_loss(seen, target, 4)
        if largest is not None:
            loss = (1 - share) * loss + share * relation_loss(seen, largest, 4)
        largest = largest or [x.detach() for x in seen]
        loss.backward()
    member.module.train()
    member.step()  # `train` would free the gradients
    for name, weight in member.module.named_parameters():
        expected = dict(alone.named_parameters())[name].grad
        assert (weight.grad is None) == (expected is None)
        if expected is not None:
            assert torch.allclose(weight.grad, expected, atol=1e-6), name


def test_members_that_see_the_same_rows_ask_the_teacher_once() -> None:
    shared = SharedTeacher(Teacher(encoder(7)))
    members = [supernet(seed, shared) for seed in range(3)]
    for member in members:
        member.train(5)
        member.evaluate()
    # 5 batches, whoever asks, and 2 held-out groups, one of which is the first batch
    assert (shared.computed, shared.asked) == (5 + 1, 3 * 5 + 3 * 2 * 6)
    alone = supernet(2)
    alone.train(5)
    for ours, other in zip(alone.module.parameters(), members[2].module.parameters(), strict=True):
        assert torch.equal(ours, other)


def test_what_does_not_fit_is_computed_again() -> None:
    batch = 4 * 12 * 16 * 3 * 4  # bytes of a batch's three: rows, length, attention, three, float32
    shared = SharedTeacher(Teacher(encoder(7)), megabytes=2.5 * batch / 2**20)
    first, second = supernet(0, shared), supernet(0, shared)
    first.train(2)
    second.train(2)
    assert shared.computed == 2
    first.train(3)
    second.train(3)
    assert shared.computed == 2 + 3 + 3 and len(shared.batches) == 2
    assert first.evaluate() == second.evaluate()


def test_super_networks_are_never_stacked() -> None:
    members = {number: supernet(number) for number in range(2)}
    assert stacks(members) == [[0], [1]]
    assert [team.stack for team in teams(members, stack=True)] == [None, None]


def test_each_step_draws_other_sub_networks_and_a_resumed_one_the_same() -> None:
    def drawn(member, steps: int) -> list[str]:
        found, forward = [], member.module.forward

        def spy(tokens, mask=None, subnet=None):
            found.append(repr(subnet))
            return forward(tokens, mask, subnet)

        member.module.forward = spy
        member.train(steps)
        member.module.forward = forward
        return found

    whole, first, resumed = supernet(), supernet(), supernet()
    all_steps = drawn(whole, 6)
    ends = {repr(SPACE.largest), repr(SPACE.smallest)}
    assert len(set(all_steps) - ends) > 2  # two a step: the same ones in all steps would be two
    first.train(3)
    resumed.load(first.state(), {})
    assert drawn(resumed, 3) == all_steps[len(all_steps) // 2 :]


def test_the_tilt_reaches_the_choice_of_sub_networks() -> None:
    drawn = []
    member = supernet(tilt=5.0)
    forward = member.module.forward

    def spy(tokens, mask=None, subnet=None):
        drawn.append(subnet)
        return forward(tokens, mask, subnet)

    member.module.forward = spy
    member.train(5)
    # nearly all widths are the larger of two; without a tilt half of them would be
    others = [subnet for subnet in drawn if subnet not in (SPACE.largest, SPACE.smallest)]
    assert len(others) == 10
    assert np.mean([subnet.width == 24 for subnet in others]) > 0.75


def markov(rows: int, length: int, seed: int, words: int = 40) -> np.ndarray:
    """Return rows of a language in which every word has four that may follow it."""
    followers = np.random.default_rng(0).integers(words, size=(words, 4))
    rng = np.random.default_rng(seed)
    tokens = rng.integers(words, size=(rows, length))
    for place in range(1, length):
        tokens[:, place] = followers[tokens[:, place - 1], rng.integers(4, size=rows)]
    return tokens.astype(np.uint16)


class Text:
    def __init__(self) -> None:
        self.cursor = 0

    def next(self):
        self.cursor += 1
        return markov(8, 16, self.cursor)

    def state(self):
        return {"cursor": self.cursor}

    def load(self, state):
        self.cursor = state["cursor"]


def test_a_family_learns_from_its_teacher() -> None:
    torch.manual_seed(0)
    space = SubSpace((2, 3, 4), (2, 3, 4), (32, 48, 64), (1.0, 2.0, 4.0), layers=4, head_width=16)
    teacher = ElasticEncoder(ElasticShape(40, 16, 4, 4, 64, 256, 16))
    with torch.no_grad():
        for weight in teacher.parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, 1.5 * weight.shape[1] ** -0.5)
    held_out = {"validation": {"text": markov(32, 16, 10_000)}}
    member = SuperNetwork(
        space,
        teacher,
        SharedTeacher(Teacher(teacher)),
        Relation(heads=8),
        DistillRecipe(steps=60, warmup=10, learning_rate=3e-3, weight_decay=0.0),
        {},
        Text(),
        held_out,
        seed=0,
    )
    before = -member.evaluate()[0]
    member.train(60)
    after = -member.evaluate()[0]
    assert after < 0.7 * before, (before, after)
