"""A prior on matrices: its arithmetic by hand, and what it does to a member."""

import numpy as np
import pytest
import torch

from shoal.cluster import nests
from shoal.trainables.coding import code_lengths, coded_size
from shoal.trainables.prior import draw_anew, fitted_shape, matrices_of, moment_ratio, shrink_to_zero
from shoal.trainables.stack import Stack
from tests.helpers.members import equal, language, points


def drawn(shape: float, count: int, seed: int = 0) -> torch.Tensor:
    found = torch.ones(count, dtype=torch.float64)
    found[::2] = -1  # deviation of 1
    draw_anew({"found": found}, shape, np.random.default_rng(seed))
    return found


class TestDistribution:
    def test_ratios_of_moments(self) -> None:
        table = {0.3: 6.661, 0.5: 3.333, 0.7: 2.485, 1: 2, 1.5: 1.698, 2: 1.571, 3: 1.461}
        for shape, ratio in table.items():
            assert moment_ratio(shape) == pytest.approx(ratio, abs=1e-3)

    def test_draws_have_the_deviation_and_the_shape(self) -> None:
        for shape, error in ((0.5, 0.013), (1.0, 0.017), (2.0, 0.038)):
            found = drawn(shape, 16384)
            assert float(found.std()) == pytest.approx(1.0, rel=0.05)
            assert fitted_shape(found) == pytest.approx(shape, abs=4 * error)
        assert fitted_shape(torch.ones(9)) == 3.0 and fitted_shape(torch.zeros(9)) == 2.0

    def test_shrinking_by_hand(self) -> None:
        weights = torch.tensor([0.5, -0.2, 0.1, 0.0], dtype=torch.float64)
        shrink_to_zero(weights, 0.15, shape=1.0)
        assert weights.tolist() == pytest.approx([0.35, -0.05, 0.0, 0.0])
        # 2 |w| is the slope of w^2
        weights = torch.tensor([0.5, -0.2], dtype=torch.float64)
        shrink_to_zero(weights, 0.1, shape=2.0)
        assert weights.tolist() == pytest.approx([0.5 - 0.2 * 0.501, -0.2 + 0.2 * 0.201])

    def test_nothing_crosses_0(self) -> None:
        """Gate G6."""
        for shape in (0.0, 0.4, 1.0, 2.0):
            before = drawn(0.8, 4000)
            after = before.clone()
            shrink_to_zero(after, 0.05, shape)
            assert (after * before >= 0).all() and (after.abs() <= before.abs()).all()
            assert (after == 0).sum() > 20 or shape == 2.0

    def test_beside_the_optimiser_it_finds_zeros_that_a_term_of_the_loss_does_not(self) -> None:
        """Sparse regression, 35 of 40 coefficients truly 0."""
        zeros = {}
        for inside in (True, False):
            rng = np.random.default_rng(0)
            rows, truth = torch.from_numpy(rng.normal(size=(200, 40))), torch.zeros(40, dtype=torch.float64)
            truth[:5] = torch.tensor([1.0, -2.0, 1.5, 0.7, -1.0])
            target = rows @ truth + 0.1 * torch.from_numpy(rng.normal(size=200))
            found = torch.nn.Parameter(torch.from_numpy(0.1 * rng.normal(size=40)))
            optimiser = torch.optim.Adam([found])
            for step in range(1500):
                rate = 0.01 * (1 - step / 1500)
                optimiser.param_groups[0]["lr"] = rate
                batch = rng.integers(0, 200, 20)
                optimiser.zero_grad()
                loss = (rows[batch] @ found - target[batch]).square().mean()
                (loss + 0.02 * found.abs().sum() if inside else loss).backward()
                optimiser.step()
                if not inside:
                    shrink_to_zero(found, rate * 0.2, shape=1.0)
            zeros[inside] = int((found[5:] == 0).sum())
            assert (found[:5] - truth[:5]).abs().max() < 0.2
        assert zeros[True] == 0 and zeros[False] >= 28


class TestCoding:
    def test_codes_by_hand(self) -> None:
        assert code_lengths(8).tolist() == [1, 3, 3, 5, 5, 5, 5, 7]
        # deviation 1: levels -1 and 1, four times and four times; one bit and three
        found = coded_size({"w": np.array([[-1.0, 1.0] * 4])}, step=1.0)
        assert (found.entropy, found.zeros, found.weights) == (1.0, 0.0, 8)
        assert found.bits == (4 * 1 + 4 * 3 + 2 * 16 + 32) / 8
        beside = coded_size({"w": np.array([[-1.0, 1.0] * 4]), "gain": np.ones(6)}, step=1.0)
        assert beside.bytes == found.bytes + 12 and coded_size({"gain": np.ones(6)}).bits == 16
        assert coded_size({"w": np.zeros((4, 4))}).zeros == 1.0

    def test_the_sheets_table(self) -> None:
        table = [
            (2.0, 0.25, 4.05, 5.10),
            (1.0, 0.25, 3.95, 4.59),
            (0.5, 0.25, 3.47, 3.66),
            (0.5, 1.0, 1.65, 1.85),
        ]
        for shape, step, entropy, bits in table:
            values = drawn(shape, 200000).numpy().reshape(400, 500)
            found = coded_size({"w": values}, step)
            assert found.entropy == pytest.approx(entropy, abs=0.05)
            assert found.bits == pytest.approx(bits, abs=0.06)


def prior_points(seed: int = 0, **given):
    return points(seed, **given)


class TestMembers:
    def test_a_prior_of_0_changes_nothing(self) -> None:
        plain, none = points(1), points(1, prior=0.0, prior_shape=1.0)
        assert plain.train(20) == none.train(20) and equal(plain.state()["weights"], none.state()["weights"])

    def test_it_is_on_matrices_and_not_on_embeddings(self) -> None:
        made = language()
        names = matrices_of(made.module)
        assert len(names) == 8 and "embedding.weight" not in names and "norm.weight" not in names

    def test_more_of_it_takes_fewer_bits(self) -> None:
        """Gate G6, in the mean and in almost every one of five seeds."""
        bits = []
        for seed in range(5):
            row = []
            for prior in (0.0, 0.03, 0.3):
                made = language(seed, prior=prior, prior_shape=1.0, weight_decay=0.0, learning_rate=0.01)
                made.train(40)
                matrices = {name: made.state()["weights"][name] for name in matrices_of(made.module)}
                row.append(coded_size(matrices).bits)
            bits.append(row)
        means = np.mean(bits, axis=0)
        assert means[0] > means[1] > means[2]
        assert all(row[0] > row[2] for row in bits)

    def test_what_is_0_stays_so_and_the_cost_is_the_coded_size(self) -> None:
        made = language(prior=3.0, prior_shape=1.0, learning_rate=0.01)
        assert made.costs()["prior"] == pytest.approx(coded_size(made.state()["weights"]).bits / 16)
        before = made.costs()["prior"]
        made.train(20)
        assert made.costs()["prior"] < before and "prior" not in language().costs()

    def test_a_clone_a_resumed_member_and_one_in_a_stack_go_on_alike(self) -> None:
        values = [{"prior": 0.0}, {"prior": 0.05}, {"prior": 0.3, "prior_shape": 0.7}]
        donor, resumed, clone = (points(1, **values[1]) for _ in range(3))
        donor.train(9)
        resumed.load(nests.loads(nests.dumps(donor.state())), values[1])
        clone.load(donor.state(), values[2])
        donor.train(9)
        resumed.train(9)
        assert equal(donor.state(), resumed.state())
        clone.train(9)
        assert not equal(donor.state()["weights"], clone.state()["weights"])
        alone, stacked = [points(1, **each) for each in values], [points(1, **each) for each in values]
        stack = Stack(stacked)
        for _ in range(2):
            stack.train(5)
            for each in alone:
                each.train(5)
        for one, other in zip(alone, stacked, strict=True):
            for name, array in one.state()["weights"].items():
                assert np.allclose(array, other.state()["weights"][name], atol=1e-5), name
        # a copy within the stack is one through a state
        stack.gather([1, 1, 1], [values[2], values[1], values[0]])
        through = points(1)
        through.load(stacked[1].state(), values[2])
        stack.train(5)
        through.train(5)
        for name, array in through.state()["weights"].items():
            assert np.allclose(array, stacked[0].state()["weights"][name], atol=1e-5), name

    def test_first_weights_of_another_shape_keep_their_deviation(self) -> None:
        plain, heavy = language(3), language(3, prior_start=0.6)
        for name in matrices_of(plain.module):
            one, other = (each.weights()[name].detach() for each in (plain, heavy))
            assert float(other.std()) == pytest.approx(float(one.std()), rel=0.25)
            assert fitted_shape(other) < 1.0 < fitted_shape(one)
        same = language(3, prior_start=0.6)
        assert equal(heavy.state()["weights"], same.state()["weights"])
        assert torch.equal(plain.weights()["embedding.weight"], heavy.weights()["embedding.weight"])
