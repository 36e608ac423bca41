"""A batch in parts has the gradient of the whole, and bfloat16 touches the forward pass alone."""

import pytest
import torch

from shoal.trainables.accumulate import in_parts, parted
from shoal.trainables.arrays import to_tensors
from shoal.trainables.stack import Stack
from tests.helpers.members import language, points

MAKERS = {"decoder": language, "points": points}


def test_parts_by_hand() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    rows = torch.tensor([1.0, 2.0, 6.0])

    def objective(part):
        losses = weight * (part["rows"] if isinstance(part, dict) else part)
        return (part["found"] * losses).sum() if isinstance(part, dict) else losses.mean(), losses

    # the mean of 2, 4 and 12, in parts of two rows and of one: its slope is the mean of 1, 2 and 6
    loss, _ = in_parts(objective, torch.Tensor.backward, rows, 2)
    assert loss.item() == pytest.approx(6.0) and weight.grad.item() == pytest.approx(3.0)
    weight.grad = None
    # each row weighs its share of all losses: 1/9, 2/9 and 6/9, whatever its part
    batch = {"rows": rows, "weights": None}
    loss, losses = in_parts(
        objective, torch.Tensor.backward, batch, 2, weigh=lambda losses, given: losses / losses.sum()
    )
    assert losses.tolist() == [2.0, 4.0, 12.0]
    assert loss.item() == pytest.approx(82 / 9) and weight.grad.item() == pytest.approx(41 / 9)


def test_more_parts_than_rows_are_as_many_as_rows() -> None:
    nest = {"a": torch.arange(3), "b": [torch.arange(6).view(3, 2)]}
    found = parted(nest, 5, 0)
    assert len(found) == 3 and found[2]["b"][0].tolist() == [[4, 5]]


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_the_gradient_is_the_whole_batchs(parts: int) -> None:
    whole, cut = language(batch=8), language(batch=8, accumulate=parts)
    for member in (whole, cut):
        member.backward(to_tensors(member.batches.next(), member.device))
    for one, other in zip(whole.module.parameters(), cut.module.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_stack_trains_as_members_alone(accumulate: int, precision: str) -> None:
    def make() -> list:
        more = {"accumulate": accumulate, "precision": precision}
        return [language(place, learning_rate=1e-3 * (1 + place), **more) for place in range(3)]

    alone, stacked = make(), make()
    within = 1e-5 if precision == "float32" else 0.02
    assert Stack(stacked).train(5) == pytest.approx([member.train(5) for member in alone], abs=within)
    for member in (*alone, *stacked):
        assert {str(weight.dtype) for weight in member.weights().values()} == {"torch.float32"}


def test_bfloat16_stays_near_float32() -> None:
    exact, rough = language(), language(precision="bfloat16")
    assert exact.train(20) == pytest.approx(rough.train(20), abs=0.05)
    assert exact.evaluate()[0] == pytest.approx(rough.evaluate()[0], abs=0.05)


def test_networks_of_ones_own_too() -> None:
    assert points(precision="bfloat16").train(10) == pytest.approx(points().train(10), abs=0.05)


def test_gradients_are_gone_after_an_interval() -> None:
    member = language()
    member.train(2)
    assert all(weight.grad is None for weight in member.module.parameters())
