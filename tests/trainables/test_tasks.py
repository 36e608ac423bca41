"""Trainables for special ends: densities, sparse codes, consistency models, and learners within a sequence."""

import math

import numpy as np
import pytest
import torch

from shoal.trainables.batches import Shuffled
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from shoal.trainables.tasks.consistency import (
    Consistency,
    level_chances,
    level_count,
    noise_levels,
    random_features,
    soft_distance,
)
from shoal.trainables.tasks.density import Density
from shoal.trainables.tasks.in_context import InContext
from shoal.trainables.tasks.sparse_code import SparseCode
from tests.helpers.members import equal


def made(
    kind, rows, seed: int = 0, batch: int = 64, steps: int = 200, rate: float = 0.01, chosen=None, **given
):
    held_out = {"validation": {"all": rows(1)}, "test": {"all": rows(2)}}
    recipe = Recipe(steps=steps, warmup=2, learning_rate=rate, weight_decay=0.0, final_rate=1.0)
    return kind(recipe, dict(chosen or {}), Shuffled(rows(0), batch, seed), held_out, seed, **given)


def two_hills(part: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([1, part])
    centre = np.where(rng.random((1000, 1)) < 0.5, -2.0, 2.0) * np.array([1.0, 0.0])
    return {"x": (centre + 0.7 * rng.normal(size=(1000, 2))).astype(np.float32)}


def likelihood(x: np.ndarray) -> float:
    """Return the mean log density of the two hills themselves."""
    parts = [-((x - [c, 0.0]) ** 2).sum(axis=1) / (2 * 0.49) for c in (-2.0, 2.0)]
    return float(np.mean(np.logaddexp(*parts)) - math.log(2) - math.log(2 * math.pi * 0.49))


@pytest.mark.parametrize("form", ["meco", "nce"])
def test_a_density_learns_two_hills(form: str) -> None:
    member = made(Density, two_hills, features=2, form=form)
    first, best = member.evaluate()[0], likelihood(two_hills(1)["x"])
    member.train(200)
    # wide noise tells NCE less
    near = 0.15 if form == "meco" else 0.6
    assert first < member.evaluate()[0] and best - near < member.evaluate()[0] < best + 0.05
    assert member.measure()["covered_all"] > 0.05
    # the score's constant is that of a sum over a fine grid
    axis = torch.linspace(-9, 9, 181)
    grid = torch.cartesian_prod(axis, axis)
    member.module.eval()
    with torch.no_grad():
        logs, _ = member.judged(member.module, {"x": grid})
    assert (logs.exp().sum() * 0.1**2).item() == pytest.approx(1.0, abs=0.06)


def test_densities_stack_and_a_constant_that_is_added_changes_no_gradient() -> None:
    def member(seed: int):
        return made(Density, two_hills, seed, features=2, width=8, layers=1, chosen={"rate": 0.1 + 0.4 * seed})

    stack = Stack([member(0), member(1)])
    assert all(math.isfinite(loss) for loss in stack.train(5))
    one = member(0)
    batch = {"x": torch.from_numpy(two_hills(0)["x"][:64])}
    slopes = []
    for shift in (0.0, 3.0):
        with torch.no_grad():
            one.module["shift"].value.fill_(shift)
            one.module["memory"].seen.zero_()
        torch.manual_seed(0)
        one.module.zero_grad()
        one.module.train()
        one.loss(one.module, batch, one.numbers).mean().backward()
        slopes.append(one.module["head"].weight.grad.clone())
    assert torch.allclose(*slopes, atol=1e-5)


def planted(part: int) -> dict[str, np.ndarray]:
    """Return sums of 3 of 20 directions."""
    rng, fixed = np.random.default_rng([2, part]), np.random.default_rng(3)
    directions = fixed.normal(size=(20, 16))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    chosen = np.argsort(rng.random((1500, 20)), axis=1)[:, :3]
    x = np.einsum("rk,rkw->rw", rng.uniform(0.7, 1.3, size=(1500, 3)), directions[chosen])
    return {"x": x.astype(np.float32)}


def test_biases_move_as_the_sheet_says() -> None:
    member = made(SparseCode, planted, features=16, neurons=4, groups=2, top=0.3, bottom=0.1)
    bias, peak = torch.full((4,), -0.2), torch.tensor([0.5, 0.8, 0.8, 0.0])
    found = member.moved(bias, torch.tensor([0.4, 0.2, 0.05, 0.0]), peak, member.numbers)
    # too often: -.2 - .01 * .5; as it should be; as it should be; never: + .01 times the group's mean peak, .8
    assert found.tolist() == pytest.approx([-0.205, -0.2, -0.2, -0.192])
    assert member.frequencies(member.numbers).tolist() == pytest.approx([0.3, 0.3, 0.1, 0.1])


def test_biases_of_a_sparse_code_fall_until_few_neurons_are_active() -> None:
    given = {"features": 16, "neurons": 64, "groups": 4, "active": 8, "top": 0.2, "bottom": 0.02, "every": 5}
    member = made(SparseCode, planted, steps=600, rate=0.003, **given)
    first = member.measure()["active_all"]
    member.train(600)
    bias, measured = member.module["memory"].bias, member.measure()
    assert member.evaluate()[0] > 0.7 and (bias <= 0).all() and (bias >= -1).all()
    assert bias.max() < -0.1 and measured["active_all"] < 0.6 * first and measured["dead_all"] < 0.1
    copy = made(SparseCode, planted, 5, steps=600, rate=0.003, **given)
    copy.load(member.state(), {})
    assert member.train(7) == copy.train(7) and equal(member.state(), copy.state())
    assert Stack([copy, member]).train(3)


def test_levels_chances_and_their_number_are_those_of_the_paper() -> None:
    wanted = [0.002, 0.0167, 0.085, 0.318, 0.965, 2.52, 5.84, 12.4, 24.4, 45.3, 80.0]
    assert noise_levels(10).tolist() == pytest.approx(wanted, rel=0.01)
    chances = level_chances(noise_levels(10), -1.1, 2.0)
    masses = [0.063, 0.182, 0.246, 0.214, 0.142, 0.081, 0.041, 0.020, 0.009, 0.004]
    assert chances.tolist() == pytest.approx(masses, abs=2e-3) and chances.sum().item() == pytest.approx(1.0)
    assert [level_count(step, 400_000) for step in (0, 50_000, 349_999, 350_000, 399_999)] == [
        10,
        20,
        640,
        1280,
        1280,
    ]
    assert level_count(3, 4) == 80, "fewer steps than doublings divide by nothing"


def test_distances_are_of_whole_vectors_and_the_least_noise_changes_nothing() -> None:
    soft = 0.00054 * math.sqrt(3072)
    assert soft == pytest.approx(0.0299, abs=1e-4)
    apart = soft_distance(torch.full((1, 3072), 0.01), torch.zeros(1, 3072), soft)
    assert apart.item() == pytest.approx(math.sqrt(0.3072 + soft**2) - soft) == pytest.approx(0.525, abs=1e-2)
    member = made(Consistency, ring, features=2)
    x = torch.randn(5, 2)
    assert torch.allclose(member.ended(member.module, x, torch.full((5,), 0.002)), x, atol=1e-6)


def ring(part: int) -> dict[str, np.ndarray]:
    angles = np.random.default_rng([4, part]).uniform(0, 2 * np.pi, 1000)
    x = 0.7 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return {"x": x.astype(np.float32)}


def test_a_ring_is_sampled_in_one_step() -> None:
    member = made(Consistency, ring, features=2, width=64, batch=128, steps=400, rate=2e-3)
    first = member.evaluate()[0]
    member.train(400)
    member.module.eval()
    with torch.no_grad():
        radius = member.sampled_points(member.module, 500).norm(dim=1)
    assert member.evaluate()[0] > first and 0.5 < radius.mean() < 0.9 and radius.std() < 0.25
    assert member.alone and torch.equal(random_features(torch.ones(2, 2)), random_features(torch.ones(2, 2)))


def spots(part: int) -> dict[str, np.ndarray]:
    """Return rows of three classes in four numbers."""
    rng = np.random.default_rng([5, part])
    label = rng.integers(3, size=600)
    centres = 2.5 * np.random.default_rng(6).normal(size=(3, 4))
    return {"x": (centres[label] + 0.3 * rng.normal(size=(600, 4))).astype(np.float32), "label": label}


def test_a_task_keeps_the_size_of_rows_and_its_names_are_a_permutation() -> None:
    member = made(InContext, spots, features=4, classes=3, length=200)
    x, label = (torch.from_numpy(spots(0)[name]) for name in ("x", "label"))
    one = member.task(x, label, 7, 1, plain=False)
    again = member.task(x, label, 7, 1, plain=False)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert 0.4 < (one[0].square().mean() / x.square().mean()).item() < 2.5
    _, plain = member.task(x, label, 7, 1, plain=True)
    pairs = {(a, b) for a, b in zip(plain.tolist(), one[1].tolist(), strict=True)}
    assert len(pairs) == 3, "each label has one other name"


def learner(seed: int = 0) -> InContext:
    given = {"features": 4, "classes": 3, "length": 16, "sequences": 32}
    return made(InContext, spots, seed, steps=900, rate=3e-3, **given)


def test_a_copy_of_a_learner_goes_on_with_the_same_tasks() -> None:
    donor, copy = learner(1), learner(2)
    donor.train(2)
    copy.load(donor.state(), {})
    assert donor.train(2) == copy.train(2) and donor.alone


@pytest.mark.slow
def test_a_network_learns_to_learn_within_a_sequence() -> None:
    member = learner()
    member.train(900)
    assert member.evaluate()[0] > 0.2 and member.evaluate()[1]["all"] < 0.55
