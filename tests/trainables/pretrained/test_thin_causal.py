"""Pretrained models of which a share of the weights is there, or that compute with few bits."""

import pytest

pytest.importorskip("transformers")

import torch

from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.recipes.layers import RecipeLinear
from tests.helpers.pretrained import causal


def test_a_whole_model_is_thinned_out_and_copied_with_its_mask() -> None:
    donor, receiver = causal(0, None, density=0.6), causal(1, None, density=0.5)
    assert "lm_head" not in donor.applied.masked and donor.costs() == {"density": 0.6}
    donor.train(3)
    hand_in(receiver.load, handed_out(donor.state), {"density": 0.5})
    for name, layer in receiver.applied.masked.items():
        there = donor.applied.masked[name].mask_order < layer.mask_count
        assert torch.equal(layer.weight, donor.applied.masked[name].weight * there)
    donor.adopt({"density": 0.5})
    assert receiver.train(3) == donor.train(3)


def test_frozen_layers_stay_whole_and_those_that_are_loaded_are_not_scaled() -> None:
    member, plain = causal(0, None, given={"freeze": ("model.layers.0.*",)}, density=0.5), causal(0, None)
    assert not any(name.startswith("model.layers.0.") for name in member.applied.masked)
    for name, layer in member.applied.masked.items():
        weight = plain.module.get_submodule(name).weight
        assert torch.equal(layer.weight, weight * (layer.mask_order < layer.mask_count))


def test_few_bits_round_all_linear_layers_but_the_head() -> None:
    few, whole = causal(0, None, bits=4), causal(0, None)
    named = {name for name, part in few.module.named_modules() if isinstance(part, RecipeLinear)}
    assert named and "lm_head" not in named
    assert few.evaluate()[0] != whole.evaluate()[0]
    assert few.float32_score()["float32_score"] == pytest.approx(whole.evaluate()[0], abs=1e-12)
    few.train(2)
