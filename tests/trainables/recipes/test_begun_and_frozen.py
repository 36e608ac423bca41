"""Frozen parts of any network, and pretrained models that are thinned out, rounded, and exported."""

from dataclasses import replace

import pytest
import torch

from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.language import LanguageModel
from shoal.trainables.recipes.densities import has_masks, without_masks
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import HELD_OUT, SHAPE, Rows

RECIPE = Recipe(steps=60, warmup=4, weight_decay=0.5)


def member(seed: int = 0, density: float = 1.0) -> LanguageModel:
    recipe = replace(RECIPE, density=density)
    return LanguageModel(recipe, {}, Rows(), HELD_OUT, seed, shape=SHAPE)


def test_frozen_weights_stay_bit_for_bit_have_no_slots_and_travel() -> None:
    one, other = member(0), member(1)
    for each in (one, other):
        each.freeze(["embedding.*", "blocks.0.*"])
    before = {name: value.clone() for name, value in one.held().items()}
    one.train(10)
    frozen = [name for name in before if name.startswith(("embedding", "blocks.0"))]
    assert all(torch.equal(one.held()[name], before[name]) for name in frozen)
    assert not torch.equal(one.held()["blocks.1.rise.weight"], before["blocks.1.rise.weight"])
    assert len(one.state()["optimiser"]) == len(before) - len(frozen)
    hand_in(other.load, handed_out(one.state), {})
    assert other.train(5) == one.train(5)
    pair = Stack([one, other])
    pair.train(3)
    assert all(torch.equal(each.held()[name], before[name]) for each in (one, other) for name in frozen)


def test_a_pattern_that_fits_nothing_or_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"freeze must name weights of the model, but none fits head\.\*"):
        member().freeze(["head.*"])
    with pytest.raises(ValueError, match="freeze must leave a weight that trains"):
        member().freeze(["*"])


def test_weights_without_masks_are_pruned_by_the_members_own_and_the_other_way_round() -> None:
    whole, thin = member(0), member(1, density=0.3)
    whole.train(3)
    orders = [layer.mask_order.clone() for layer in thin.applied.masked.values()]
    thin.load_weights(whole.state()["weights"])
    for order, (name, layer) in zip(orders, thin.applied.masked.items(), strict=True):
        assert torch.equal(layer.mask_order, order)
        kept = order < layer.mask_count
        assert torch.equal(layer.weight, whole.held()[f"{name}.weight"] * kept)
    exported = thin.state()["weights"]
    assert has_masks(exported) and not has_masks(without_masks(exported))
    again = member(2)
    again.load_weights(without_masks(exported))
    assert again.evaluate() == thin.evaluate(), "what is exported computes the same without masks"
