"""STORM: its features by hand, its gradient by finite differences, and noisy labels found."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from shoal.policies.sampling.storm import FEATURES, LEAST, Passes, divergence, features, overlap
from shoal.trainables.storm import Rescaler, meta_loss, row_loss_function


def row_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits, labels, reduction="none")


def test_features_by_hand() -> None:
    # two passes; row 0 is of class 0 and agrees, row 1 is of class 1 and does not
    now = Passes(
        np.array([[1.0, 2.0], [3.0, 2.0]]),
        np.array([[0.6, 0.9], [0.8, 0.9]]),
        np.array([0, 1]),
        np.array([True, False]),
    )
    before = Passes(
        np.array([[0.0, 4.0], [2.0, 6.0]]),
        np.array([[0.5, 0.7], [0.5, 0.7]]),
        np.array([0, 0]),
        np.array([True, True]),
    )
    found = features(now, before)
    assert found.shape == (2, FEATURES)
    # losses 1 and 3: mean 2, spread sqrt(2); probabilities 0.6 and 0.8: mean 0.7, spread sqrt(0.02)
    assert found[0, :4] == pytest.approx([2, math.sqrt(2), 0.7, math.sqrt(0.02)])
    # its group in memory has losses of mean 1 and 5, so mean 3 and spread sqrt(8), all with a spread of sqrt(2)
    assert found[0, 4:8] == pytest.approx([3, math.sqrt(2), 0.6, LEAST], abs=1e-12)
    assert found[0, 8:12] == pytest.approx([math.sqrt(8), LEAST, math.sqrt(0.02), LEAST], abs=1e-7)
    # ln(sqrt(8) / sqrt(2)) + (2 + 1) / 16 - 1/2, of N(2, sqrt(2)) from N(3, sqrt(8))
    assert found[0, 12] == pytest.approx(math.log(2) + 3 / 16 - 0.5)
    assert found[0, 13] == pytest.approx(NormalDist(2, math.sqrt(2)).overlap(NormalDist(3, math.sqrt(8))))
    assert found[:, 18].tolist() == [1, 0]
    # row 1 is alone in its group: no spreads, no divergence
    assert found[1, 8:13] == pytest.approx([LEAST] * 4 + [0.0], abs=1e-12)
    assert np.isfinite(found).all()


def test_divergence_and_overlap_are_those_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    means, widths = rng.normal(size=50), rng.uniform(0.2, 3, 50)
    expected = [NormalDist(m, w).overlap(NormalDist(0.5, 1.2)) for m, w in zip(means, widths, strict=True)]
    assert overlap(means, widths, 0.5, 1.2) == pytest.approx(expected, abs=1e-9)
    assert overlap(np.array([0.5]), np.array([1.2]), 0.5, 1.2) == pytest.approx([1.0])
    assert divergence(np.array([0.5]), np.array([1.2]), 0.5, 1.2) == pytest.approx([0.0], abs=1e-12)
    assert (divergence(means, widths, 0.5, 1.2) >= 0).all()


def linear(seed: int = 0) -> tuple[nn.Module, dict[str, torch.Tensor], tuple, tuple]:
    torch.manual_seed(seed)
    module = nn.Linear(4, 3).double()
    first = torch.randn(6, 4, dtype=torch.double), torch.randint(3, (6,))
    second = torch.randn(5, 4, dtype=torch.double), torch.randint(3, (5,))
    return module, dict(module.named_parameters()), first, second


def test_the_meta_gradient_is_that_of_finite_differences_and_of_the_identity() -> None:  # G10
    module, model, first, second = linear()
    losses, rate = row_loss_function(module, row_losses), 0.3
    weights = torch.rand(6, dtype=torch.double, requires_grad=True)

    def meta(values: torch.Tensor) -> torch.Tensor:
        return meta_loss(losses, model, first, values, second, lambda moved: torch.ones(5).double(), rate)

    (gradient,) = torch.autograd.grad(meta(weights), weights)
    for row in range(6):
        step = torch.zeros(6, dtype=torch.double)
        step[row] = 1e-5
        slope = (meta(weights + step) - meta(weights - step)) / 2e-5
        assert gradient[row].item() == pytest.approx(slope.item(), abs=1e-6)
    # -rate * g_i . the meta loss's gradient at the moved weights
    (slopes,) = torch.autograd.grad((weights.detach() * losses(model, first)).sum(), [model["weight"]])
    (bias,) = torch.autograd.grad((weights.detach() * losses(model, first)).sum(), [model["bias"]])
    moved = {"weight": model["weight"] - rate * slopes, "bias": model["bias"] - rate * bias}
    outer = torch.autograd.grad(losses(moved, second).sum(), list(moved.values()))
    own = torch.autograd.grad(losses(model, first)[2], [model["weight"], model["bias"]])
    dot = sum((one * other).sum() for one, other in zip(own, outer, strict=True))
    assert gradient[2].item() == pytest.approx(-rate * dot.item(), abs=1e-12)


def test_equal_features_weigh_alike() -> None:
    torch.manual_seed(0)
    same = Rescaler(FEATURES, 2)(torch.ones(8, FEATURES), torch.zeros(8, dtype=torch.long))
    assert torch.allclose(same, same[0].expand(8)) and 0 < same[0] < 1


def test_the_last_norm_keeps_weights_from_vanishing() -> None:
    means = []
    for norm in (True, False):
        torch.manual_seed(0)
        rescaler = Rescaler(FEATURES, 2)
        if not norm:
            for layers in rescaler.each:
                layers[4] = nn.Identity()
        rows, labels = torch.randn(64, FEATURES), torch.randint(2, (64,))
        optimiser = torch.optim.Adam(rescaler.parameters(), 1e-2)
        for _ in range(200):  # the rescaled loss is least where nothing weighs anything
            optimiser.zero_grad()
            rescaler(rows, labels).sum().backward()
            optimiser.step()
        means.append(rescaler(rows, labels).mean().item())
    assert means[0] > 0.1 and means[1] < 0.01


def train_on_noise(seed: int) -> tuple[float, float]:
    """Return the chance that a clean label weighs more than a flipped one, at the start and the end."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 2, 800)
    points = torch.from_numpy(rng.normal(size=(800, 2)) + 3.0 * (true[:, None] - 0.5)).float()
    flipped = rng.random(800) < 0.3
    labels = torch.from_numpy(np.where(flipped, 1 - true, true))
    module = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))
    rescaler, losses = Rescaler(FEATURES, 2), row_loss_function(module, row_losses)
    optimisers = torch.optim.Adam(module.parameters(), 3e-3), torch.optim.Adam(rescaler.parameters(), 1e-2)
    memory: list[Passes | None] = [None]

    def seen(model, rows) -> torch.Tensor:
        inputs, given = points[rows], labels[rows]
        with torch.no_grad():
            logits = torch.stack([torch.func.functional_call(module, dict(model), (inputs,)) for _ in range(3)])
        likeliest = logits.softmax(dim=-1).mean(dim=0).max(dim=-1)
        by_pass = torch.stack([row_losses(each, given) for each in logits])
        now = Passes(
            by_pass.double().numpy(),
            logits.softmax(dim=-1).max(dim=-1).values.double().numpy(),
            given.numpy(),
            (likeliest.indices == given).numpy(),
        )
        found, memory[0] = features(now, memory[0]), now
        return rescaler(torch.from_numpy(found).float(), given)

    areas = []
    for step in range(150):
        first, second = rng.integers(0, 800, 64), rng.integers(0, 800, 64)
        model = dict(module.named_parameters())
        weights = seen(model, first)
        batch, other = (points[first], labels[first]), (points[second], labels[second])
        meta = meta_loss(
            losses, model, batch, weights, other, lambda moved, rows=second: seen(moved, rows), 0.01
        )
        optimisers[1].zero_grad()
        meta.backward()
        optimisers[1].step()
        optimisers[0].zero_grad()
        (weights.detach() * losses(model, batch)).sum().backward()
        optimisers[0].step()
        if step in (0, 149):
            with torch.no_grad():
                found = seen(model, np.arange(800)).numpy()
            better = (found[~flipped][:, None] > found[flipped]).mean()
            areas.append(float(better))
    return areas[0], areas[1]


def test_flipped_labels_come_to_weigh_less_than_clean_ones() -> None:
    first, last = train_on_noise(0)
    assert last > 0.9 and last > first
