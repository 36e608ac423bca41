"""A decoder that grows keeps its function, and its slots stay those of its gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from shoal.trainables.decoder import Decoder, initialise, token_losses
from shoal.trainables.growth import Growth, grow_slots, grow_weights, growth_between, mixed
from shoal.trainables.settings import DecoderShape

SMALL = DecoderShape(vocabulary=23, sequence_length=10, layers=3, heads=2, width=16)
LARGE = replace(SMALL, layers=6, heads=4, width=32)
WIDE = replace(SMALL, heads=4, width=32)
TOKENS = torch.from_numpy(np.random.default_rng(0).integers(0, 23, (4, 10)))


def decoder(shape: DecoderShape, seed: int = 0, scale: float = 10.0) -> Decoder:
    model = Decoder(shape).double()
    generator = torch.Generator().manual_seed(seed)
    initialise(model, generator)
    with torch.no_grad():
        for weight in model.parameters():  # large enough for logits that differ, and gains of all sizes
            weight.mul_(scale) if weight.dim() > 1 else weight.uniform_(0.5, 2.0, generator=generator)
    return model


def arrays(model: Decoder) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def filled(shape: DecoderShape, weights) -> Decoder:
    model = Decoder(shape).double()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return model


def gradients(model: Decoder) -> dict[str, np.ndarray]:
    model.zero_grad()
    token_losses(model(TOKENS).double(), TOKENS).mean().backward()
    return {name: weight.grad.numpy().copy() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("shape", [WIDE, replace(SMALL, layers=9), LARGE], ids=["wide", "deep", "both"])
def test_the_grown_decoder_has_the_same_logits(shape) -> None:
    small = decoder(SMALL)
    large = filled(shape, grow_weights(arrays(small), growth_between(SMALL, shape)))
    logits = small(TOKENS)
    assert logits.abs().max() > 2
    assert (large(TOKENS) - logits).abs().max() < 1e-12
    in_float32 = large.float()(TOKENS) - small.float()(TOKENS)
    assert in_float32.abs().max() < 1e-5


def test_copies_of_layers_change_the_logits_and_half_steps_less() -> None:
    small, deep = decoder(SMALL, scale=3.0), replace(SMALL, layers=6)  # blocks that add little to the stream
    growth = growth_between(SMALL, deep)
    apart = {
        depth: (filled(deep, grow_weights(arrays(small), growth, depth))(TOKENS) - small(TOKENS)).norm().item()
        for depth in ("zero", "halves", "copy")
    }
    assert apart["zero"] == 0 and 0 < apart["halves"] < apart["copy"]


@pytest.mark.parametrize("depth", ["zero", "halves", "copy"])
def test_a_grown_decoder_shrinks_to_what_it_was(depth) -> None:
    weights = arrays(decoder(SMALL))
    large = grow_weights(weights, growth_between(SMALL, LARGE), depth)
    again = grow_weights(large, growth_between(LARGE, SMALL), depth)
    assert again.keys() == weights.keys()
    for name, value in weights.items():
        assert np.allclose(again[name], value, atol=1e-15, rtol=1e-15), name


def test_by_hand() -> None:
    # one number becomes two that each carry half of every product
    shape = DecoderShape(vocabulary=2, sequence_length=8, layers=1, heads=1, width=2, expansion=1)
    weights = arrays(decoder(shape))
    weights["blocks.0.rise.weight"] = np.array([[4.0, 8.0], [2.0, 6.0]])
    weights["norm.weight"] = np.array([3.0, 5.0])
    found = grow_weights(weights, Growth(2, 1, True))
    assert found["blocks.0.rise.weight"].tolist() == [[2, 4, 2, 4], [1, 3, 1, 3]] * 2
    assert found["norm.weight"].tolist() == [1.5, 2.5, 1.5, 2.5]
    # q, k and v are widened each by itself: rows of q come before those of k
    project = weights["blocks.0.attention.project.weight"]
    wide = found["blocks.0.attention.project.weight"]
    assert np.array_equal(wide[:4, :2], np.tile(project[:2], (2, 1)) / 2)
    assert np.array_equal(wide[4:8, 2:], np.tile(project[2:4], (2, 1)) / 2)


def test_slots_grow_as_gradients_do() -> None:
    small = decoder(SMALL)
    large = filled(WIDE, grow_weights(arrays(small), Growth(2, 1, True)))
    given, found = gradients(small), gradients(large)
    expected = grow_slots(given, Growth(2, 1, True), "exp_avg")
    squares = grow_slots({name: value**2 for name, value in given.items()}, Growth(2, 1, True), "exp_avg_sq")
    for name, gradient in found.items():
        assert np.allclose(gradient, expected[name], atol=1e-9), name
        assert np.allclose(gradient**2, squares[name], atol=1e-12), name
        back = grow_slots(expected, Growth(2, 1, False), "exp_avg")[name]
        assert np.allclose(back, given[name], atol=1e-12), name


def test_one_step_from_grown_slots_is_the_grown_step() -> None:
    """With half the rate where weights are half as large, the large decoder's step is the small one's."""
    growth, rate, epsilon = Growth(2, 1, True), 1e-3, 1e-12
    small = decoder(SMALL)
    rng = np.random.default_rng(1)
    weights = arrays(small)
    mean = {name: rng.normal(size=value.shape) * 1e-3 for name, value in weights.items()}
    square = {name: rng.uniform(1e-6, 1e-5, size=value.shape) for name, value in weights.items()}
    large = filled(WIDE, grow_weights(weights, growth))
    slots = [grow_slots(mean, growth, "exp_avg"), grow_slots(square, growth, "exp_avg_sq")]

    def stepped(model, means, squares, halved):
        found = {}
        for name, gradient in gradients(model).items():
            means[name] = 0.9 * means[name] + 0.1 * gradient
            squares[name] = 0.95 * squares[name] + 0.05 * gradient**2
            step = rate * means[name] / (np.sqrt(squares[name]) + epsilon)
            part = 0.5 if halved and (name == "norm.weight" or is_inner_matrix(name)) else 1.0
            found[name] = arrays(model)[name] - part * step
        return found

    def is_inner_matrix(name):
        return name.startswith("blocks.") and "norm" not in name

    first = stepped(small, mean, square, False)
    second = stepped(large, *slots, True)
    for name, value in grow_weights(first, growth).items():
        assert np.allclose(second[name], value, atol=1e-6), name
    for name, value in grow_slots(mean, growth, "exp_avg").items():
        assert np.allclose(slots[0][name], value, atol=1e-6), name


def test_copies_stay_equal_unless_they_are_mixed_with_others() -> None:
    growth = growth_between(SMALL, LARGE)
    lifted = grow_weights(arrays(decoder(SMALL)), growth)
    own = arrays(decoder(LARGE, 5))
    for share, equal in ((1.0, True), (0.5, False)):
        found = gradients(filled(LARGE, mixed(own, lifted, share)))["blocks.0.rise.weight"]
        assert np.allclose(found[:64], found[64:], atol=1e-7) == equal
    nothing = mixed(own, lifted, 0.0)
    assert all(np.array_equal(nothing[name], own[name]) for name in own)


def test_shapes_that_no_map_joins_are_refused() -> None:
    told = "so many times as wide"
    for shape in (
        replace(SMALL, heads=4),
        replace(SMALL, layers=4),
        replace(WIDE, layers=1),
        DecoderShape(23, 10),
    ):
        with pytest.raises(ValueError, match=told):
            growth_between(SMALL, shape)
    with pytest.raises(ValueError, match="expansion 2"):
        growth_between(SMALL, replace(WIDE, expansion=2.0))
    with pytest.raises(ValueError, match=r"plain decoder can grow or shrink, but there is head\.bias"):
        grow_weights({"head.bias": np.ones(2)}, Growth(2, 1, True))
    with pytest.raises(ValueError, match="the same shapes"):
        mixed(arrays(decoder(SMALL)), arrays(decoder(WIDE)), 0.5)
