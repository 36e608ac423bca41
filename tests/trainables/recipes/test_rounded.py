"""Members that compute with few bits: gradients, stacks, copies, and what is never rounded."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.language import LanguageModel
from shoal.trainables.recipes.applied import round_layers
from shoal.trainables.recipes.formats import E2M1, in_blocks
from shoal.trainables.recipes.layers import RecipeLinear
from shoal.trainables.recipes.rounded import RoundedProduct, bits_a_number
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import HELD_OUT, SHAPE, Rows

RECIPE = Recipe(steps=60, warmup=4)


def narrow(seed: int = 0, recipe: Recipe = RECIPE, **hyperparameters: Any) -> LanguageModel:
    return LanguageModel(recipe, hyperparameters, Rows(), HELD_OUT, seed, shape=SHAPE)


def rows_and_weight(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(7, 40, generator=made), torch.randn(9, 40, generator=made)


def test_six_roundings_each_along_the_axis_that_is_summed_by_hand() -> None:
    rows, weight = (each.requires_grad_() for each in rows_and_weight())
    made = RoundedProduct.apply(rows, weight, 4.0, False, False)
    assert torch.equal(made, in_blocks(rows, E2M1) @ in_blocks(weight, E2M1).T)
    gradient = torch.randn(made.shape, generator=torch.Generator().manual_seed(5))
    made.backward(gradient)
    turned = {
        name: in_blocks(each.T.contiguous(), E2M1)
        for name, each in (("g", gradient), ("x", rows), ("w", weight))
    }
    assert torch.equal(rows.grad, in_blocks(gradient, E2M1) @ turned["w"].T)
    assert torch.equal(weight.grad, turned["g"] @ turned["x"].T)
    assert not torch.equal(turned["w"].T, in_blocks(weight, E2M1)), "a transposed operand is rounded again"


def test_of_32_bits_nothing_is_rounded_bit_for_bit() -> None:
    searched, plain = narrow(bits=32), narrow()
    assert searched.train(10) == plain.train(10) and searched.evaluate() == plain.evaluate()
    assert searched.costs() == {"bits": 1.0} and plain.cost is None


def test_stochastic_products_are_unbiased_within_four_deviations() -> None:
    rows, weight = rows_and_weight()
    gradient = torch.randn(7, 9, generator=torch.Generator().manual_seed(5))
    draws: list[torch.Tensor] = []
    torch.manual_seed(0)
    for _ in range(2000):
        one, other = rows.clone().requires_grad_(), weight.clone().requires_grad_()
        RoundedProduct.apply(one, other, 4.0, False, True).backward(gradient)
        draws.append(torch.cat([one.grad.flatten(), other.grad.flatten()]).double())
    found = torch.stack(draws)
    exact = torch.cat([(gradient @ weight).flatten(), (gradient.T @ rows).flatten()]).double()
    deviations = (found.mean(dim=0) - exact).abs() / (found.std(dim=0) / len(draws) ** 0.5)
    assert deviations.max() < 4.5 and deviations.square().mean() < 1.3, "640 numbers, each of deviation 1"
    nearest = [each.clone().requires_grad_() for each in (rows, weight)]
    RoundedProduct.apply(*nearest, 4.0, False, False).backward(gradient)
    plain = torch.cat([each.grad.flatten() for each in nearest]).double()
    assert ((plain - exact) / (found.std(dim=0) / len(draws) ** 0.5)).square().mean() > 100


def test_the_gradient_of_loose_rounding_is_that_of_the_unrounded_layer() -> None:
    rows, weight = rows_and_weight()
    weight.requires_grad_()
    RoundedProduct.apply(rows, weight, 16.0, False, False).square().sum().backward()
    plain = weight.detach().clone().requires_grad_()
    (rows @ plain.T).square().sum().backward()
    torch.testing.assert_close(weight.grad, plain.grad, rtol=0.02, atol=0.5)


def test_embeddings_norms_and_tied_heads_are_not_rounded() -> None:
    member = narrow(bits=4)
    assert len(member.applied.rounded) == 8 and type(member.module.embedding) is nn.Embedding
    own = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    own[1].weight = own[0].weight
    with pytest.raises(ValueError, match="bits must be 32 for a network without linear layers"):
        round_layers(own, Recipe(bits=4))


def test_a_stack_of_three_numbers_of_bits_is_three_members_alone() -> None:
    bits = (4, 8, 32)
    alone, stacked = ([narrow(seed, bits=each) for seed, each in enumerate(bits)] for _ in range(2))
    stack = Stack(stacked)
    # rounding magnifies the last digit in which sums of a stack differ
    np.testing.assert_allclose(stack.train(4), [member.train(4) for member in alone], atol=2e-3)
    assert stack.evaluate() == [member.evaluate() for member in stacked]
    stack.gather([1, 1, 2], [{"bits": 8}, {"bits": 4}, {"bits": 32}])
    assert [float(member.applied.rounded[0].bits) for member in stacked] == [8, 4, 32]
    assert equal(stacked[0], stacked[1])


def equal(one: LanguageModel, other: LanguageModel) -> bool:
    return all(torch.equal(value, other.held()[name]) for name, value in one.held().items())


def test_a_receiver_goes_on_as_the_donor_would_with_these_bits_and_draws() -> None:
    recipe = replace(RECIPE, rounding="stochastic", elements="int")
    donor, receiver = narrow(1, recipe, bits=8), narrow(2, recipe, bits=4)
    donor.train(5)
    hand_in(receiver.load, handed_out(donor.state), {"bits": 6})
    donor.adopt({"bits": 6})
    assert receiver.train(10) == donor.train(10) and equal(receiver, donor)


def test_scores_are_of_the_rounded_network_and_the_float32_score_stands_beside() -> None:
    member = narrow(bits=4)
    member.train(20)
    score = member.evaluate()[0]
    beside = member.float32_score()["float32_score"]
    member.adopt({"bits": 32})
    assert beside == pytest.approx(member.evaluate()[0], abs=1e-12) and score != beside
    assert narrow().float32_score() == {}


def test_masked_weights_are_rounded_as_masked() -> None:
    member = narrow(bits=4, density=0.4)
    assert member.costs() == {"density": 0.4, "bits": 4.25 / 32} and member.cost == pytest.approx(0.053125)
    layer = member.applied.rounded[0]
    assert isinstance(layer, RecipeLinear)
    rows = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(rows), in_blocks(rows, E2M1) @ in_blocks(layer.weight, E2M1).T)
    assert bits_a_number(16) == 16


def test_what_cannot_be_together_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be left out with bits"):
        narrow(recipe=replace(RECIPE, precision="bfloat16"), bits=4)
    with pytest.raises(ValueError, match="gradient_checkpointing must be left out with bits"):
        narrow(recipe=replace(RECIPE, gradient_checkpointing=True, bits=8))
    with pytest.raises(ValueError, match="bits must be one of 4, 6, 8, 16, 32, but got 5"):
        Recipe(bits=5)
