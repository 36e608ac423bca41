"""Steps of a classifier that take more than one pass: attacks, styles, and a teacher from the future."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from shoal.trainables.class_judge import ClassJudge
from shoal.trainables.class_steps import Style, ascend, average, look_ahead, worst
from shoal.trainables.handover import handed_out
from shoal.trainables.objectives.robust_rows import RobustRows
from shoal.trainables.objectives.worst_rows import WorstRows
from tests.helpers.classifiers import classifier, points
from tests.helpers.members import equal
from tests.helpers.objectives import numbers_of


def losses_at(member, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return cross_entropy(member.module.heads_on(x, member.numbers)["logits"], label, reduction="none")


def rows_of(member, seed: int = 5) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    batch = {name: torch.from_numpy(each) for name, each in points(seed).items()}
    return member.inputs(batch), member.roles(batch)


def test_attacked_rows_stay_within_reach_and_their_losses_rise() -> None:
    member = classifier({"worst_rows": {"ascents": 3, "reach": 0.2}})
    x, roles = rows_of(member)
    term = member.losses.terms["worst_rows"]
    moved, apart = worst(term, member.module, x, roles, member.numbers | numbers_of(term))
    assert (moved - x).abs().max().item() <= 0.2 + 1e-6
    assert (losses_at(member, moved, roles["label"]) > losses_at(member, x, roles["label"])).all()
    assert torch.allclose(apart, (moved - x).square().sum(dim=1))
    first = member.evaluate()[0]
    member.train(40)
    assert member.evaluate()[0] > max(first, 0.6)


def test_without_ascents_rows_stay_and_members_stack() -> None:
    plain, attacked = classifier({"worst_rows": {}}), classifier({"worst_rows": {"ascents": 1}})
    assert not plain.alone and attacked.alone
    assert WorstRows().needs == {"logits"}


def test_moved_rows_are_the_closed_form_where_the_loss_is_linear() -> None:
    # the hinge 1 - w.x on a row of the margin .5: phi is 1 - m + |w|^2 / (4 cost), and one step reaches it
    w, x, cost = torch.tensor([3.0, 4.0]), torch.tensor([[0.1, 0.05]]), 5.0
    z = x - w / (2 * cost)  # the slope of the hinge is -w
    value = 1 - (z @ w) - cost * (z - x).square().sum()
    assert value.item() == pytest.approx(1 - 0.5 + 25 / (4 * cost), abs=1e-6)
    # RobustRows moves the same way on cross-entropy: the slope over twice the cost
    made = RobustRows(cost=cost, ascents=1)
    label = torch.tensor([0])
    leaf = x.clone().requires_grad_()
    [slope] = torch.autograd.grad(cross_entropy(leaf @ torch.eye(2), label), leaf)
    batch = {"label": label, "unlabelled": torch.tensor([0])}
    moved = made.moved(x, lambda rows: {"logits": rows @ torch.eye(2)}, batch, numbers_of(made))
    assert torch.allclose(moved, x + slope / (2 * cost))


def test_with_an_infinite_cost_the_loss_is_the_plain_one_and_unlabelled_rows_have_their_weight() -> None:
    member = classifier({"robust_rows": {"cost": 1e9, "unlabelled_cost": 1e9, "unlabelled": 0.0}})
    x, roles = rows_of(member)
    member.module.train()
    batch = {name: torch.from_numpy(each) for name, each in points(5).items()}
    losses = member.loss(member.module, batch, member.numbers)
    plain = losses_at(member, x, roles["label"]) * (roles["unlabelled"] == 0)
    assert torch.allclose(losses, plain, atol=1e-5)


def test_a_style_of_no_strength_and_one_that_is_judged_change_nothing() -> None:
    x, style = torch.randn(4, 3, 5, 5), Style(3)
    style.open(0.0)
    assert torch.equal(style(x), x)
    style.open(1.0)
    assert not torch.allclose(style(x), x)
    assert torch.equal(style(x), style(x)), "the noise is drawn once a step"
    style.eval()
    assert torch.equal(style(x), x)


def test_styles_rise_against_the_network_and_an_image_classifier_learns() -> None:
    def member(**given):
        return classifier({"adversarial_style": given}, shape=(8, 8), network="conv", width=8, layers=2)

    one, other = member(ascent=0.0), member(ascent=5.0)
    for each in (one, other):
        each.train(3)
    [plain], [risen] = ([each for each in m.module.modules() if isinstance(each, Style)] for m in (one, other))
    assert plain.begun == 1 and not torch.equal(plain.means, risen.means)
    assert (risen.means >= 0).all() and (risen.sizes >= 0).all()
    assert other.alone
    copied = member(ascent=5.0)
    copied.load(other.state(), {})
    assert other.train(2) == copied.train(2) and equal(other.state(), copied.state())
    one.train(37)
    assert one.evaluate()[0] > 0.8


def test_ascent_raises_the_loss_on_the_same_noise() -> None:
    member = classifier({"adversarial_style": {}}, shape=(8, 8), network="conv", width=8, layers=2)
    batch = {name: torch.from_numpy(each) for name, each in points(5, shape=(8, 8)).items()}
    x, label = member.inputs(batch), member.roles(batch)["label"]
    seen = []

    def mean_loss() -> torch.Tensor:
        seen.append(losses_at(member, x, label).mean())
        return seen[-1]

    member.module.train()
    ascend(member.module, mean_loss, 1.0, 0.5, 3)
    mean_loss()
    assert seen[-1] > seen[0]


def test_without_looking_ahead_it_is_the_mean_teacher() -> None:
    member = classifier({"future_teacher": {"ahead": 0, "decay": 0.5}})
    student = {name: value.clone() for name, value in member.module.body.state_dict().items()}
    member.train(1)
    # at the first step the teacher becomes the student, which then moves on
    teacher = member.module.teacher["body"].state_dict()
    assert all(torch.equal(teacher[name], value) for name, value in student.items())


def test_steps_that_look_ahead_are_taken_back_whole() -> None:
    member = classifier({"future_teacher": {"ahead": 2, "decay": 0.9}})
    member.train(3)
    before = copy.deepcopy(member.state())
    batch = {name: torch.from_numpy(each[:8]) for name, each in points(5).items()}
    member.module.train()
    look_ahead(member, member.losses.terms["future_teacher"], batch)
    after = member.state()
    own = {name: value for name, value in before["weights"].items() if "teacher." not in name}
    assert equal(own, {name: after["weights"][name] for name in own})
    assert equal(before["optimiser"], after["optimiser"]) and before["trained"] == after["trained"]
    assert not equal(before["weights"], after["weights"]), "the teacher has seen the future"


def test_a_step_leaves_the_same_share_of_the_teacher_however_far_it_looks() -> None:
    for ahead in (0, 2, 5):
        member = classifier({"future_teacher": {"ahead": ahead, "decay": 0.9}})
        term = member.losses.terms["future_teacher"]
        assert term.teaching(1000, {"decay": 0.9}) ** (ahead + 1) == pytest.approx(0.9)
        assert term.teaching(0, {"decay": 0.9}) == 0.0
    average(member.module, 0.5)


@pytest.mark.parametrize(
    ("kind", "given"),
    [("future_teacher", {}), ("adversarial_style", {"shape": (1, 8, 8), "network": "conv"})],
)
def test_what_only_training_looks_at_is_no_part_of_a_judge(kind: str, given: dict) -> None:
    member = classifier({kind: {}}, **given)
    member.train(2)
    weights = handed_out(member.state)["weights"]
    judge = ClassJudge(member.settings, member.losses, weights, ("x",))
    rows = points(7, shape=given.get("shape", (6,)))
    with torch.no_grad():
        own = member.values(member.module.eval(), {name: torch.from_numpy(each) for name, each in rows.items()})
    np.testing.assert_allclose(judge.values(rows), own.numpy(), atol=1e-6)
