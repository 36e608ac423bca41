"""Losses on outputs: by hand, at their least, and who gets a gradient."""

import math

import pytest
import torch
from torch import nn

from shoal.trainables.distill.hard import Shift, Turn, augmentor_loss, disagreement, next_turn, student_loss
from shoal.trainables.distill.losses import hidden_loss, logit_loss
from shoal.trainables.distill.meal import Discriminator, adversarial_loss, soft_loss, soft_target
from shoal.trainables.distill.rotations import class_logits, joint_labels, rotated, self_distillation_loss


def logits(seed: int, rows: int = 5, classes: int = 4) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_logit_loss_by_hand() -> None:
    # teacher (3/4, 1/4), student (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2)
    teacher = torch.tensor([[math.log(3), 0.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert logit_loss(torch.zeros(1, 2), teacher).item() == pytest.approx(expected, rel=1e-6)
    mask = torch.tensor([True, False])
    rows = torch.cat((teacher, teacher * 5))
    assert logit_loss(torch.zeros(2, 2), rows, mask=mask).item() == pytest.approx(expected, rel=1e-6)
    assert logit_loss(teacher, teacher, 3.0).item() == pytest.approx(0, abs=1e-7)


def test_the_factor_keeps_the_gradient_as_large_at_any_high_temperature() -> None:
    sizes = []
    for temperature in (20.0, 40.0):
        student = logits(0).requires_grad_()
        logit_loss(student, logits(1), temperature).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_logit_losss_gradient(temperature) -> None:
    student = logits(0).float().requires_grad_()
    logit_loss(student, logits(1), temperature).backward()
    p, q = ((x.float() / temperature).softmax(-1) for x in (logits(1), student.detach()))
    assert torch.allclose(student.grad, temperature * (q - p) / 5, atol=1e-6)


def test_the_hidden_loss_by_hand_and_through_a_projection() -> None:
    student, teacher = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 2.0]]])
    assert hidden_loss(student, teacher).item() == 2.0  # (2^2 + 0) / 2
    wide = torch.tensor([[[1.0, 2.0, 3.0]]])
    exact = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # 1, 2 and 1 + 2
    assert hidden_loss(student, wide, exact).item() == 0.0
    with pytest.raises(ValueError, match="widths 2 and 3 differ: a projection is needed"):
        hidden_loss(student, wide)


class TestMeal:
    def test_probabilities_are_meaned_and_not_logits(self) -> None:
        teachers = torch.tensor([[[4.0, 0.0]], [[0.0, 1.0]]])
        target = soft_target(teachers)
        # softmax(4, 0) = 0.98201, softmax(0, 1) = 0.26894: mean 0.62548; that of the logits gives 0.81757
        assert target[0].tolist() == pytest.approx([0.62548, 0.37452], abs=1e-5)
        assert soft_target(torch.randn(3, 5, 4)).sum(-1).tolist() == pytest.approx([1.0] * 5)

    def test_the_least_loss_is_the_targets_entropy(self) -> None:
        student = logits(0).requires_grad_()
        target = soft_target(student[None])
        loss = soft_loss(student, target)
        loss.backward()
        entropy = -(target * target.log()).sum(-1).mean().item()
        assert loss.item() == pytest.approx(entropy, rel=1e-6)
        assert student.grad.abs().max() < 1e-7

    def test_the_gradient_is_the_difference_of_the_probabilities(self) -> None:
        student, target = logits(0).requires_grad_(), soft_target(logits(1)[None])
        soft_loss(student, target).backward()
        assert torch.allclose(student.grad, (student.detach().softmax(-1) - target) / 5, atol=1e-7)

    @pytest.mark.parametrize("reverse", [True, False])
    def test_a_step_of_the_student_raises_the_discriminators_loss_only_if_reversed(self, reverse) -> None:
        torch.manual_seed(0)
        judge = Discriminator(4)
        student, teachers = logits(0).float().requires_grad_(), logits(1).float()[None]
        adversarial_loss(judge, student, teachers, reverse).backward()
        assert judge.layers[0].weight.grad.any() and student.grad.any()
        with torch.no_grad():
            before = adversarial_loss(judge, student, teachers)
            after = adversarial_loss(judge, student - 0.1 * student.grad / student.grad.norm(), teachers)
        assert (after > before) == reverse


class TestHard:
    def test_the_turns_by_hand(self) -> None:
        # mean 1.0, then 0.9 * 1 + 0.1 * 0 = 0.9: below 0.95, so the augmentor's turn
        turn = next_turn(Turn(), 1.0, low=0.95, high=1.5)
        assert turn == (True, 1.0)
        turn = next_turn(turn, 0.0, low=0.95, high=1.5)
        assert turn == (False, pytest.approx(0.9))
        # 0.81 + 0.1 * 5 = 1.31 is not above 1.5, 1.179 + 0.5 = 1.679 is
        turn = next_turn(turn, 5.0, low=0.95, high=1.5)
        assert turn == (False, pytest.approx(1.31))
        assert next_turn(turn, 5.0, low=0.95, high=1.5) == (True, pytest.approx(1.679))
        with pytest.raises(ValueError, match="0 < low < high, got low=2, high=1"):
            next_turn(Turn(), 0.0, 2, 1)

    def test_each_loss_reaches_only_whom_it_trains(self) -> None:
        torch.manual_seed(0)
        teacher, student, shift = nn.Linear(16, 3), nn.Linear(16, 3), Shift(2)
        rows = torch.randn(8, 16)
        augmentor_loss(student, teacher, rows, shift(rows)).backward()
        assert shift.logits.grad.any()
        assert student.weight.grad is None and teacher.weight.grad is None
        shift.logits.grad = None
        student_loss(student, teacher, shift(rows)).backward()
        assert student.weight.grad.any()
        assert shift.logits.grad is None and teacher.weight.grad is None

    def test_a_student_like_its_teacher_leaves_nothing_to_disagree_about(self) -> None:
        torch.manual_seed(0)
        teacher, shift, rows = nn.Linear(16, 3), Shift(2), torch.randn(8, 16)
        augmentor_loss(teacher, teacher, rows, shift(rows), consistency=0.0).backward()
        assert not shift.logits.grad.any()

    def test_a_shift_moves_by_whole_places_within_its_bound(self) -> None:
        shift, rows = Shift(2), torch.arange(16.0).repeat(200, 1)
        moved = shift(rows, torch.Generator().manual_seed(0)).detach()
        first = moved[:, 0].round().long()
        assert set(first.tolist()) == {0, 1, 2, 14, 15}
        back = torch.stack([row.roll(int(place)) for row, place in zip(moved, first, strict=True)])
        assert torch.allclose(back, rows, atol=1e-4)

    def test_a_high_weight_of_consistency_brings_the_identity(self) -> None:
        torch.manual_seed(0)
        teacher, student, shift = nn.Linear(16, 3), nn.Linear(16, 3), Shift(2)
        rows, generator = torch.randn(256, 16), torch.Generator().manual_seed(0)
        optimiser = torch.optim.Adam(shift.parameters(), 0.1)
        for _ in range(100):
            optimiser.zero_grad()
            augmentor_loss(student, teacher, rows, shift(rows, generator), consistency=100.0).backward()
            optimiser.step()
        assert shift.logits.softmax(0)[2] > 0.95
        assert disagreement(teacher(rows), teacher(shift(rows, generator))) < 0.2


class TestRotations:
    def test_four_quarter_turns_are_none(self) -> None:
        images = torch.randn(2, 3, 5, 5)
        turned = rotated(images)
        assert turned.shape == (8, 3, 5, 5) and torch.equal(turned[::4], images)
        assert torch.equal(rotated(rotated(images)[3::4])[1::4], images)

    def test_joint_labels_are_all_different(self) -> None:
        assert joint_labels(torch.arange(10)).tolist() == list(range(40))

    def test_classes_are_summed_as_probabilities(self) -> None:
        # two classes of four rotations; the first has one high logit, the second four middling ones:
        # probabilities e^4 + 3 = 57.6 against 4 e^2 = 29.6, where the logits' sums say 4 against 8
        joint = torch.tensor([[4.0, 0, 0, 0, 2, 2, 2, 2]])
        found = class_logits(joint)
        assert found.exp().sum().item() == pytest.approx(1.0)
        assert found.argmax() == 0 and joint.unflatten(-1, (2, 4)).sum(-1).argmax() == 1
        assert found[0, 0].exp().item() == pytest.approx(
            (math.exp(4) + 3) / (math.exp(4) + 3 + 4 * math.exp(2))
        )

    def test_no_head_is_changed_by_the_one_it_teaches(self) -> None:
        def gradients(weight: float) -> list[torch.Tensor]:
            final, labels = logits(0, 8, 3).requires_grad_(), torch.tensor([0, 2])
            heads = [logits(seed, 8, 12).requires_grad_() for seed in (1, 2)]
            features = [logits(seed, 8, 6).requires_grad_() for seed in (3, 4)]
            loss = self_distillation_loss(
                final, heads, features, labels, logit_weight=weight, feature_weight=weight
            )
            loss.backward()
            return [x.grad for x in (final, heads[0], features[0], features[1])]

        alone, taught = gradients(0.0), gradients(1.0)
        # the network's own logits and the last features only teach; the first head and features learn
        assert torch.equal(alone[0], taught[0]) and taught[3] is None
        assert not torch.allclose(alone[1], taught[1]) and taught[2].any()

    def test_the_loss_by_hand(self) -> None:
        # one image of two classes, all logits 0: ln 2 for the class, ln 8 for the joint label, no divergence
        loss = self_distillation_loss(torch.zeros(4, 2), [torch.zeros(4, 8)], [], torch.tensor([1]))
        assert loss.item() == pytest.approx(math.log(2) + math.log(8), rel=1e-6)


class Patterns(nn.Module):
    """A teacher that looks for three patterns of five places wherever they lie, so shifts change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.patterns = nn.Parameter(torch.randn(3, 5, generator=torch.Generator().manual_seed(3)))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        windows = torch.cat((rows, rows[:, :4]), dim=1).unfold(1, 5, 1)  # the ends meet
        return 6 * (windows @ self.patterns.T / self.patterns.norm(dim=1) ** 2).amax(dim=1)


def signals(teacher: Patterns, count: int, most: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return signals of 16 places with a pattern, moved by up to `most` places, and which pattern it is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    rows = 0.15 * torch.randn(count, 16, generator=generator)
    rows[:, 6:11] += teacher.patterns.detach()[labels]
    shifts = torch.randint(-most, most + 1, (count,), generator=generator)
    return torch.stack([row.roll(int(shift)) for row, shift in zip(rows, shifts, strict=True)]), labels


def test_learnt_shifts_carry_over_what_the_teacher_does_not_mind() -> None:
    def accuracy(learnt: bool) -> float:
        torch.manual_seed(0)
        teacher, augmentor, turn = Patterns(), Shift(6), Turn()
        student = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3))
        centred, _ = signals(teacher, 300, 0, seed=0)
        generator = torch.Generator().manual_seed(0)
        optimisers = (
            torch.optim.Adam(student.parameters(), 1e-2),
            torch.optim.Adam(augmentor.parameters(), 5e-2),
        )
        for _ in range(500):
            rows = centred[torch.randint(len(centred), (64,), generator=generator)]
            augmented = augmentor(rows, generator) if learnt else rows
            if turn.student:
                loss = student_loss(student, teacher, augmented)
            else:
                loss = augmentor_loss(student, teacher, rows, augmented)
            optimiser = optimisers[not turn.student]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            found = disagreement(student(augmented.detach()), teacher(augmented.detach())).item()
            turn = next_turn(turn, found, 0.3, 1.0) if learnt else turn
        assert (teacher(augmentor(centred, generator)) - teacher(centred)).abs().max() < 1e-4
        rows, labels = signals(teacher, 600, 6, seed=99)
        return (student(rows).argmax(dim=1) == labels).double().mean().item()

    plain, hard = accuracy(False), accuracy(True)
    assert hard > plain + 0.2, (plain, hard)
