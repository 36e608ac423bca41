"""The relation loss: its analytic properties, its gradient, padding and memory."""

import math

import pytest
import torch

from shoal.trainables.distill.relations import relation_loss


def three(width: int, seed: int, rows: int = 2, length: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, length, width, generator=generator, dtype=torch.float64) for _ in range(3)]


def loss(student, teacher, heads=4, mask=None, kind="kl", chunk=None) -> float:
    return relation_loss(student, teacher, heads, mask, kind, chunk).item()


STUDENT, TEACHER = three(8, 1), three(24, 2)
MASK = torch.arange(6) < torch.tensor([[6], [4]])


def test_the_loss_by_hand() -> None:
    # one row of two tokens, one head of width 1. Teacher (0, 0): every product 0, both softmaxes (1/2, 1/2).
    # Student (0, s) with s^2 = ln 3: products [[0, 0], [0, ln 3]], so rows (1/2, 1/2) and (1/4, 3/4).
    # The divergences are 0 and 1/2 ln(2) + 1/2 ln(2/3); their mean over two tokens, three times for Q, K, V
    student = torch.tensor([[[0.0], [math.log(3) ** 0.5]]])
    teacher = torch.zeros(1, 2, 1)
    expected = 3 * (math.log(2) + math.log(2 / 3)) / 2 / 2
    assert loss([student] * 3, [teacher] * 3, heads=1) == pytest.approx(expected, rel=1e-5)
    # squared: one of four pairs differs, by ln 3
    assert loss([student] * 3, [teacher] * 3, heads=1, kind="mse") == pytest.approx(3 * math.log(3) ** 2 / 4)


@pytest.mark.parametrize("kind", ["kl", "mse"])
@pytest.mark.parametrize("mask", [None, MASK])
class TestEveryKind:
    def test_it_is_nought_only_where_relations_are_equal(self, kind, mask) -> None:
        assert loss(STUDENT, STUDENT, mask=mask, kind=kind) == pytest.approx(0, abs=1e-15)
        assert loss(STUDENT, TEACHER, mask=mask, kind=kind) > 0.1

    def test_turning_a_heads_space_changes_nothing(self, kind, mask) -> None:
        # an orthogonal matrix within each head of 6, and a sign for all
        turns = torch.linalg.qr(torch.randn(4, 6, 6, dtype=torch.float64)).Q
        turned = [-(x.unflatten(-1, (4, 6)).unsqueeze(-2) @ turns).flatten(-3) for x in TEACHER]
        before, after = (loss(STUDENT, other, mask=mask, kind=kind) for other in (TEACHER, turned))
        assert after == pytest.approx(before, abs=1e-13)

    def test_dims_of_different_heads_may_not_be_mixed(self, kind, mask) -> None:
        mixed = [x.roll(3, dims=-1) for x in TEACHER]
        before, after = (loss(STUDENT, other, mask=mask, kind=kind) for other in (TEACHER, mixed))
        assert abs(after - before) > 1e-3

    def test_heads_may_change_places_on_both_sides_alike(self, kind, mask) -> None:
        order = [2, 0, 3, 1]
        moved = [
            [x.unflatten(-1, (4, -1))[:, :, order].flatten(-2) for x in side] for side in (STUDENT, TEACHER)
        ]
        before, after = loss(STUDENT, TEACHER, mask=mask, kind=kind), loss(*moved, mask=mask, kind=kind)
        assert after == pytest.approx(before, abs=1e-13)

    def test_tokens_may_not(self, kind, mask) -> None:
        moved = [x[:, [1, 0, 2, 3, 4, 5]] for x in TEACHER]
        before, after = (loss(STUDENT, other, mask=mask, kind=kind) for other in (TEACHER, moved))
        assert abs(after - before) > 1e-3

    def test_chunks_change_neither_loss_nor_gradient(self, kind, mask) -> None:
        found = []
        for chunk in (None, 1, 3):
            student = [x.clone().requires_grad_() for x in STUDENT]
            value = relation_loss(student, TEACHER, 4, mask, kind, chunk)
            value.backward()
            found.append([value.detach(), *(x.grad for x in student)])
        for other in found[1:]:
            assert all(torch.allclose(a, b, atol=1e-14) for a, b in zip(found[0], other, strict=True))

    def test_the_gradient_is_that_of_finite_differences(self, kind, mask) -> None:
        student = [x.clone().requires_grad_() for x in STUDENT]

        def value(*parts):
            return relation_loss(parts, TEACHER, 4, mask, kind)

        assert torch.autograd.gradcheck(value, student, atol=1e-6)


@pytest.mark.parametrize("kind", ["kl", "mse"])
def test_padding_is_as_if_it_were_not_there(kind) -> None:
    long, short = [x[:1] for x in STUDENT], [x[1:, :4] for x in STUDENT]
    apart = [
        loss(part, [x[place : place + 1, : part[0].shape[1]] for x in TEACHER], kind=kind)
        for place, part in enumerate((long, short))
    ]
    # over real tokens (6 and 4), or over real pairs (36 and 16)
    sizes = (6, 4) if kind == "kl" else (36, 16)
    expected = sum(size * value for size, value in zip(sizes, apart, strict=True)) / sum(sizes)
    assert loss(STUDENT, TEACHER, mask=MASK, kind=kind) == pytest.approx(expected, abs=1e-12)
    padded = [x + 100 * (~MASK)[..., None] for x in STUDENT]
    assert loss(padded, TEACHER, mask=MASK, kind=kind) == pytest.approx(expected, abs=1e-12)


def test_the_gradient_by_scores_is_the_difference_of_the_relations() -> None:
    # d KL / d score = (q - p) / tokens: one head as wide as long, so that products can be any matrix
    student = torch.eye(3)[None] * 2.0
    student.requires_grad_()
    teacher = torch.zeros(1, 3, 3)
    relation_loss([student] * 3, [teacher] * 3, 1).backward()
    with torch.no_grad():
        scores = student[0] @ student[0].T / 3**0.5
        by_score = (scores.softmax(-1) - 1 / 3) / 3
        expected = 3 * (by_score + by_score.T) @ student[0] / 3**0.5
    assert torch.allclose(student.grad[0], expected, atol=1e-6)


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = [x.clone().requires_grad_() for x in TEACHER]
    student = [x.clone().requires_grad_() for x in STUDENT]
    relation_loss(student, teacher, 4).backward()
    assert all(x.grad is None for x in teacher) and all(x.grad is not None for x in student)


def test_half_precision_is_computed_in_single() -> None:
    halves = [x.to(torch.bfloat16) for x in STUDENT]
    value = relation_loss(halves, TEACHER, 4)
    assert value.item() == pytest.approx(loss([x.double() for x in halves], TEACHER), rel=1e-5)


@pytest.mark.parametrize(("heads", "width"), [(3, 8), (0, 8), (8, 20)])
def test_heads_that_do_not_divide_a_width_are_refused(heads, width) -> None:
    teacher = [x[..., :20] for x in TEACHER] if width == 20 else TEACHER
    with pytest.raises(ValueError, match=f"must divide the width {width}, got {heads}"):
        relation_loss(STUDENT, teacher, heads)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kl, mse, got 'cosine'"):
        relation_loss(STUDENT, TEACHER, 4, kind="cosine")
