"""Members of which only a share of the weights is there: alone, in stacks, and as donors."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.language import LanguageModel
from shoal.trainables.recipes.densities import without_masks
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.classifiers import classifier
from tests.helpers.members import HELD_OUT, SHAPE, Rows, language

RECIPE = Recipe(steps=60, warmup=4, weight_decay=0.1)


def thin(seed: int = 0, recipe: Recipe = RECIPE, **hyperparameters: Any) -> LanguageModel:
    return LanguageModel(recipe, hyperparameters, Rows(), HELD_OUT, seed, shape=SHAPE)


def gone(member: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: layer.mask_order >= layer.mask_count for name, layer in member.applied.masked.items()}


def masked_parts(member: LanguageModel) -> torch.Tensor:
    """Return what the weights and slots outside of the masks are."""
    found = []
    for name, layer in member.applied.masked.items():
        outside = gone(member)[name]
        slots = [slot for slot in member.optimiser.state[layer.weight].values() if slot.shape == outside.shape]
        found += [each.detach()[outside] for each in (layer.weight, *slots)]
    return torch.cat(found)


def equal(one: LanguageModel, other: LanguageModel) -> bool:
    first, second = one.held(), other.held()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_density_of_one_trains_as_without_masks_bit_for_bit() -> None:
    masked, plain = thin(density=1.0), thin()
    assert masked.train(10) == plain.train(10) and masked.evaluate() == plain.evaluate()
    assert masked.costs() == {"density": 1.0} and plain.costs() == {} and plain.cost is None
    assert without_masks(masked.state()["weights"]).keys() == plain.state()["weights"].keys()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_the_count_is_exact_and_what_is_gone_stays_zero(kind) -> None:
    member = thin(recipe=replace(RECIPE, optimiser=kind), density=0.3)
    total = sum(layer.weight.numel() for layer in member.applied.masked.values())
    there = sum(int((layer.weight != 0).sum()) for layer in member.applied.masked.values())
    assert there == round(0.3 * total) and "embedding" not in member.applied.masked
    member.train(50)
    assert not masked_parts(member).any()
    assert sum(int((layer.weight != 0).sum()) for layer in member.applied.masked.values()) == there


def test_the_clip_sees_what_is_there_alone() -> None:
    member = thin(density=0.3)
    batch = torch.from_numpy(member.batches.next().astype(np.int64))
    member.backward(batch)
    for name, layer in member.applied.masked.items():
        assert not layer.weight.grad[gone(member)[name]].any() and layer.weight.grad.any()


def test_a_denser_mask_has_all_of_a_sparser_one_and_changes_no_output() -> None:
    member = thin(density=0.2)
    member.train(10)
    before, score = gone(member), member.evaluate()
    member.adopt({"density": 0.25})
    assert all(bool((before[name] | ~outside).all()) for name, outside in gone(member).items())
    assert member.evaluate() == score, "weights that come in are 0"
    member.train(5)
    assert not masked_parts(member).any() and member.evaluate() != score


def test_a_sparser_receiver_keeps_the_donors_weights_under_its_own_mask() -> None:
    donor, receiver = thin(1, density=0.5), thin(2, density=0.2)
    donor.train(10)
    hand_in(receiver.load, handed_out(donor.state), {"density": 0.2})
    for name, layer in receiver.applied.masked.items():
        theirs = donor.applied.masked[name]
        assert torch.equal(layer.mask_order, theirs.mask_order), "the order is the donor's"
        assert torch.equal(layer.weight, theirs.weight * (theirs.mask_order < layer.mask_count))
    assert not masked_parts(receiver).any()


def test_a_receiver_goes_on_as_the_donor_would_with_these_numbers() -> None:
    donor, receiver = thin(1, density=0.5), thin(2, density=0.4)
    donor.train(10)
    hand_in(receiver.load, handed_out(donor.state), {"density": 0.3})
    donor.adopt({"density": 0.3})
    assert receiver.train(20) == donor.train(20) and equal(receiver, donor)


def test_a_stack_of_three_densities_is_three_members_alone_and_copies_as_they_do() -> None:
    densities = (0.2, 0.5, 1.0)
    alone = [thin(seed, density=density) for seed, density in enumerate(densities)]
    stacked = [thin(seed, density=density) for seed, density in enumerate(densities)]
    stack = Stack(stacked)
    np.testing.assert_allclose(stack.train(10), [member.train(10) for member in alone], atol=1e-5)
    places = [layer.weight.data_ptr() for layer in stacked[0].applied.masked.values()]
    stack.gather([2, 1, 2], [{"density": 0.3}, {"density": 0.5}, {"density": 1.0}])
    hand_in(alone[0].load, handed_out(alone[2].state), {"density": 0.3})
    assert places == [layer.weight.data_ptr() for layer in stacked[0].applied.masked.values()]
    for one, other in zip(stacked, alone, strict=True):
        for name, value in one.held().items():
            torch.testing.assert_close(value, other.held()[name], atol=1e-5, rtol=0)
    np.testing.assert_allclose(stack.train(10), [member.train(10) for member in alone], atol=1e-5)
    stack.seat_slots()
    assert not any(masked_parts(member).any() for member in stacked)


def test_orders_depend_on_seed_and_name_alone_and_batches_are_the_same() -> None:
    one, same, other = thin(1, density=0.3), thin(1, density=0.6), thin(2, density=0.3)
    orders = [[layer.mask_order for layer in member.applied.masked.values()] for member in (one, same, other)]
    assert all(map(torch.equal, orders[0], orders[1])) and not any(map(torch.equal, orders[0], orders[2]))
    assert not torch.equal(orders[0][0], orders[0][4]), "two layers of one shape"
    assert torch.equal(one.generator.get_state(), same.generator.get_state())


def test_drawn_weights_are_scaled_for_the_inputs_that_are_left() -> None:
    scaled, plain = (thin(recipe=replace(RECIPE, density=0.25, mask_scale=each)) for each in (True, False))
    for name, layer in scaled.applied.masked.items():
        part = int(layer.mask_count) / layer.weight.numel()
        torch.testing.assert_close(layer.weight, plain.applied.masked[name].weight / part**0.5)


def test_layers_computed_again_are_masked_too() -> None:
    again, plain = (
        thin(recipe=replace(RECIPE, gradient_checkpointing=each), density=0.3) for each in (True, False)
    )
    assert again.train(5) == plain.train(5) and equal(again, plain)


def test_densities_leave_the_last_layer_whole_or_refuse() -> None:
    member = thin(recipe=replace(RECIPE, densities="erk_plus"), density=0.5)
    assert not gone(member)["blocks.1.fall"].any()
    with pytest.raises(ValueError, match="density must be at least"):
        thin(recipe=replace(RECIPE, densities="erk_plus"), density=0.05)
    with pytest.raises(ValueError, match="density must be above 0"):
        language(density=0.0)


@pytest.mark.parametrize(("network", "shape"), [("mlp", (6,)), ("conv", (8, 8, 1))])
def test_a_classifiers_body_is_thinned_out_and_its_heads_are_whole(network, shape) -> None:
    member = classifier(hyperparameters={"density": 0.5}, network=network, shape=shape)
    layers = member.applied.masked
    assert layers and not any(name.startswith("head") for name in layers)
    member.train(3)
    total = sum(layer.weight.numel() for layer in layers.values())
    there = sum(int((layer.weight != 0).sum()) for layer in layers.values())
    assert there == round(0.5 * total) and member.measure()["accuracy_one"] >= 0
