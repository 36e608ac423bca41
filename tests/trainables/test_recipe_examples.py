"""The recipes that are users' own trainables: each trains, and does what its page says."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from examples.recipes import curation, dilution, gate, real_and_generated, sparse_wide, sst, wad
from shoal.cluster import nests
from shoal.trainables.batches import Shuffled
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import equal

PAGES = sorted(Path("examples/recipes").resolve().glob("*.py"))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
LABELS = X[:, :3].argmax(axis=1)


def made(kind, rows, seed=0, values=None, steps=60, rate=0.01, **constants):
    recipe = Recipe(steps=steps, warmup=0, learning_rate=rate, weight_decay=0.0)
    held_out = {"validation": {"all": rows}}
    return kind(recipe, values or {}, Shuffled(rows, batch=16, seed=1), held_out, seed, **constants)


def test_each_is_short() -> None:
    assert len(PAGES) >= 7 and all(len(page.read_text().splitlines()) < 60 for page in PAGES)


@pytest.mark.parametrize(
    ("kind", "rows", "values", "constants"),
    [
        (sparse_wide.SparseWide, {"x": X, "label": LABELS}, {"share": 0.25}, {"inputs": 6, "classes": 3}),
        (real_and_generated.Views, {"image": RNG.random((64, 3, 8, 8), np.float32)}, {"strength": 0.3}, {}),
        (dilution.Linear, {"x": X[:, :2].copy(), "label": LABELS % 2}, {}, {}),
        (
            wad.WeightAware,
            {"x": X, "label": LABELS, "margin": np.ones(64, np.float32)},
            {"power": 2.0},
            {"inputs": 6, "classes": 3},
        ),
        (gate.Experts, {"x": X, "y": np.abs(X[:, 0])}, {"hot": 3.0}, {"inputs": 6}),
    ],
    ids=["sparse_wide", "real_and_generated", "dilution", "wad", "gate"],
)
def test_it_learns_goes_on_after_a_resume_and_trains_in_a_stack(kind, rows, values, constants) -> None:
    first = made(kind, rows, values=values, **constants)
    before = first.train(5)
    again = made(kind, rows, 3, values, **constants)
    again.load(nests.loads(nests.dumps(first.state())), values)
    assert first.train(50) == again.train(50) and equal(first.state(), again.state())
    assert first.train(5) < before
    stack = Stack([made(kind, rows, seed, values, **constants) for seed in range(3)])
    stack.train(4)
    stack.gather([1, 1, 2], [values] * 3)
    assert np.isfinite(stack.train(4)).all()


class TestSparseWide:
    def test_the_products_are_those_of_a_dense_layer(self) -> None:
        module = sparse_wide.Wide(200, 32, 100, 0.125)
        for share in (1.0, 0.5, 0.25, 0.125):
            rise, fall, rows = module.masks(torch.tensor(share))
            assert int(rows.sum()) == 32 / share
            assert int(rise.sum()) == pytest.approx(200 * 32, rel=0.05)
            assert int(fall.sum()) == pytest.approx(100 * 32, rel=0.1)

    def test_an_exploit_leaves_zeros_outside_the_mask(self) -> None:
        rows = {"x": X, "label": LABELS}
        donor, clone = (made(sparse_wide.SparseWide, rows, seed, inputs=6, classes=3) for seed in (0, 1))
        donor.train(20)
        clone.load(donor.state(), {"share": 0.25})
        rise = clone.module.masks(torch.tensor(0.25))[0]
        weights, own = clone.module.rise.weight.detach(), donor.module.rise.weight.detach()
        assert torch.equal(weights, own * rise) and torch.equal(clone.module.rise_draw, donor.module.rise_draw)
        slots = clone.optimiser.state[clone.module.rise.weight]
        assert not (slots["exp_avg"] * (1 - rise)).any() and slots["exp_avg"].any()


class TestSpectral:
    """Least squares towards a target of full rank, as on the sheet: 16 numbers in, 16 out."""

    rng = np.random.default_rng(5)
    x = rng.normal(size=(256, 16)).astype(np.float32)
    target = rng.normal(size=(16, 16)).astype(np.float32) / 3
    rows: ClassVar = {"x": x, "y": x @ target}

    class Squares(sst.Spectral):
        def build(self):
            return sst.SpectralLinear(torch.randn(16, 16) / 10)

        def loss(self, module, batch, numbers):
            return (module(batch["x"]) - batch["y"]).square().sum(dim=1)

        def score(self, module, rows):
            return -self.loss(module, rows["all"], self.numbers).mean(), {}

    def member(self, rank: int, steps: int = 640):
        return made(self.Squares, self.rows, values={"rank": rank}, steps=steps, rate=0.02)

    def test_the_start_and_a_decomposition_keep_the_product(self) -> None:
        weight = torch.randn(5, 7)
        layer = sst.SpectralLinear(weight)
        for anew in (False, True):
            layer.draw(2, anew)
            assert torch.allclose((layer.u * layer.s) @ layer.v.mT, weight, atol=1e-5)
            assert int(layer.drawn.sum()) == 2
        assert torch.allclose(layer.u.mT @ layer.u, torch.eye(5), atol=1e-5)

    def test_other_columns_stay_bit_for_bit_within_an_iteration(self) -> None:
        one = self.member(3)
        one.train(1)
        module, before = one.module, one.module.u.detach().clone()
        one.train(10)
        still = module.drawn == 0
        assert torch.equal(module.u[:, still], before[:, still]) and still.sum() == 13
        assert not torch.equal(module.u, before)
        assert torch.allclose(module.u.norm(dim=0), torch.ones(16), atol=1e-5) and (module.s >= 0).all()
        other = self.member(3)
        other.load(nests.loads(nests.dumps(one.state())), {"rank": 3})  # in mid-iteration
        assert one.train(40) == other.train(40) and equal(one.state(), other.state())

    def test_it_passes_the_floor_of_an_adapter_of_four_times_the_rank(self) -> None:
        """Gate G9: what W0 + B A of rank 4 cannot leave, columns of rank 1 do."""
        one = self.member(1)
        start = ((one.module.u * one.module.s) @ one.module.v.mT).detach()
        tail = torch.linalg.svdvals(torch.from_numpy(self.target.T) - start)[4:].square().sum()
        one.train(640)
        left = (
            ((one.module.u * one.module.s) @ one.module.v.mT - torch.from_numpy(self.target.T)).square().sum()
        )
        assert float(left) < float(tail)


class TestRealAndGenerated:
    def test_strength_0_and_1_are_the_two_tables(self) -> None:
        weak, strong = real_and_generated.changes(0.0), real_and_generated.changes(1.0)
        assert list(weak.values()) == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.4, 0.1])
        assert list(strong.values()) == pytest.approx([0.08, 0.8, 0.8, 0.8, 0.8, 0.2])

    def test_more_strength_changes_pictures_more(self) -> None:
        images = torch.rand(400, 3, 8, 8)
        apart = [(real_and_generated.changed(images, each) - images).square().mean() for each in (0.0, 1.0)]
        assert apart[0] < apart[1]


class TestDilution:
    def test_held_out_rows_like_the_middle_and_shifted_ones_do_not(self) -> None:
        rng, table = np.random.default_rng(0), {}
        tests = [dilution.rows(40000, shortcut, rng) for shortcut in (dilution.TEST, dilution.SHIFTED)]
        for share in (1.0, 0.75, 0.5, 0.25, 0.0):
            weights = dilution.discriminant(*dilution.source_rows(share, 40000, rng))
            table[share] = [float(((x @ weights > 0) == label).mean()) for x, label in tests]
        expected = {1.0: (0.88, 0.811), 0.75: (0.917, 0.714), 0.5: (0.921, 0.619), 0.0: (0.91, 0.5)}
        for share, found in expected.items():
            assert table[share] == pytest.approx(found, abs=0.015)
        shifted = [table[share][1] for share in sorted(table)]
        assert shifted == sorted(shifted)

    def test_a_mixture_of_one_group_is_not_diluted(self) -> None:
        alone = {"plain": {"core": 0.3, "far": 0.5}, "tempting": {"core": 0.2, "far": 0.9}}
        assert dilution.dilution(alone["plain"], {"plain": alone["plain"]}) == {"core": 0.0, "far": 0.0}
        mixed = dilution.dilution({"core": 0.25, "far": 0.6}, alone)
        assert mixed == pytest.approx({"core": 0.05, "far": 0.1})


class TestCuration:
    def test_a_round_is_the_closed_form(self) -> None:
        """Gate G8: three answers of rewards 1, 2, 4."""
        even = np.full(3, 1 / 3)
        assert curation.curated(even, curation.REWARD, 1) == pytest.approx(even, abs=1e-9)
        assert curation.curated(even, curation.REWARD, 2) == pytest.approx([0.2296, 0.3333, 0.4370], abs=1e-4)
        assert curation.curated(even, curation.REWARD, 4) == pytest.approx([0.1805, 0.3150, 0.5045], abs=1e-4)
        # by hand, with two answers drawn: 1/3 * (1/3) * sum over the other of 2 * 4 / (4 + other)
        best = 1 / 9 * (2 * 4 / 5 + 2 * 4 / 6 + 2 * 4 / 8)
        assert curation.curated(even, curation.REWARD, 2)[2] == pytest.approx(best, abs=1e-9)
        drawn = RNG.choice(3, size=(200000, 2))
        chance = curation.REWARD[drawn[:, 0]] / curation.REWARD[drawn].sum(axis=1)
        picked = np.where(RNG.random(200000) < chance, drawn[:, 0], drawn[:, 1])
        found = np.bincount(picked, minlength=3) / 200000
        assert found == pytest.approx(curation.curated(even, curation.REWARD, 2), abs=0.005)

    def test_without_real_rows_it_collapses_and_with_them_it_does_not(self) -> None:
        rewards, distinct = [], {}
        for weight in (0.0, 1.0, 1e9):
            member = curation.Curated(None, {"weight": weight}, 0, "cpu")
            for _ in range(40):
                member.train(1)
                rewards.append(member.evaluate()[0]) if weight == 1e9 else None
            distinct[weight] = member.measure()["distinct"]
            if not weight:
                assert member.chance == pytest.approx(curation.REAL)
        assert (
            (np.diff(rewards) > -1e-4).all() and rewards[-1] > 3.99 and distinct[1e9] < 1.2 < 2 < distinct[1.0]
        )
        other = curation.Curated(None, {"weight": 0.0}, 0, "cpu")
        other.load(member.state(), {"weight": 1.0})
        assert equal(other.state(), member.state()) and other.hyperparameters == {"weight": 1.0}


class TestWeightAware:
    def test_rows_between_two_classes_have_no_margin(self) -> None:
        angles = np.array([0.0, 2.1, 4.2, 1.05, 0.05])  # three classes; between the first two; near the first
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        found, margin = wad.margins(points[:3], np.arange(3), points[3:])
        assert margin[0] == pytest.approx(0.0, abs=1e-9) and margin[1] > 0.3 and found[1] == 0

    def test_a_margin_of_0_trains_nothing(self) -> None:
        rows = {"x": X, "label": LABELS, "margin": np.zeros(64, np.float32)}
        one = made(wad.WeightAware, rows, inputs=6, classes=3)
        losses = one.loss(
            one.module, {name: torch.from_numpy(value) for name, value in rows.items()}, one.numbers
        )
        losses.mean().backward()
        assert all(not weight.grad.any() for weight in one.module.parameters())

    def test_fewer_rows_are_taken_in_from_round_to_round(self) -> None:
        losses = RNG.random(1000)
        assert [len(wad.taken_in(losses, round_)) for round_ in range(1, 7)] == [64, 36, 16, 4, 0, 0]
        taken = wad.taken_in(losses, 1)
        assert len(set(taken.tolist())) == 64 and losses[taken].max() <= np.sort(losses)[63]


class TestGate:
    def test_a_scaled_linear_gate_is_the_same_and_an_active_one_is_not(self) -> None:
        x = torch.randn(9, 6)
        for active, same in ((False, True), (True, False)):
            module = gate.Gated(6, 3, active)
            first = module.chances(x, 1.0)
            with torch.no_grad():
                module.gate.weight.mul_(3), module.gate.bias.mul_(3)
            assert torch.allclose(module.chances(x, 3.0), first, atol=1e-6) == same

    def test_a_hot_gate_is_even_and_a_cold_one_has_one_expert(self) -> None:
        module, x = gate.Gated(6, 3, True), torch.randn(9, 6)
        assert torch.allclose(module.chances(x, 1e6), torch.full((9, 3), 1 / 3), atol=1e-5)
        assert torch.allclose(module.chances(x, 1e-6).max(dim=1).values, torch.ones(9), atol=1e-3)

    def test_the_temperature_goes_from_hot_to_cold_and_rows_are_judged_at_the_cold_one(self) -> None:
        rows = {"x": X, "y": np.abs(X[:, 0])}
        one = made(gate.Experts, rows, values={"hot": 4.0}, inputs=6)
        assert float(one.temperature(one.module.age, one.numbers)) == pytest.approx(4.0)
        one.train(60)
        assert float(one.temperature(one.module.age, one.numbers)) == pytest.approx(0.3, rel=0.1)
        assert isinstance(one.module, nn.Module) and np.isfinite(one.evaluate()[0])

    def test_gates_of_a_stack_cool_as_they_do_alone(self) -> None:
        rows = {"x": X, "y": np.abs(X[:, 0])}

        def one(place: int) -> gate.Experts:
            return made(gate.Experts, rows, place, {"hot": 2.0 + 2 * place}, inputs=6)

        stack = Stack([one(place) for place in range(2)])
        for place, loss in enumerate(stack.train(20)):
            alone = one(place)
            assert alone.train(20) == pytest.approx(loss, rel=1e-4)
            assert float(stack.members[place].module.age) == float(alone.module.age) == 20.0
