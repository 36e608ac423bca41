"""A swarm of small runs, made up, and what it proposes."""

import numpy as np
import pytest

from policies.laws.loglinear import Law
from policies.laws.offline import Search, controls, design, offer
from policies.laws.optimum import best_mixture
from policies.mixing import Vector

ROWS = np.array([6000.0, 3000.0, 1000.0])
LAW = Law(np.array([0.2, 0.0, 0.4]), np.array([[-2.0, -0.2, 0.0], [0.0, -1.0, -0.6], [0.0, -0.3, -3.0]]))


def swarm(search: Search, noise: float, seed: int = 0) -> tuple[Vector, Vector, np.random.Generator]:
    rng = np.random.default_rng(seed)
    mixtures = design(search, ROWS, rng)
    losses = LAW.losses(mixtures)
    return mixtures, losses + noise * rng.standard_normal(losses.shape), rng


def test_a_design_begins_with_the_controls() -> None:
    mixtures = design(Search(), ROWS, np.random.default_rng(0))
    assert mixtures.shape == (12, 3) and mixtures.sum(axis=1) == pytest.approx(np.ones(12))
    assert mixtures[0] == pytest.approx([1 / 3] * 3) and mixtures[1] == pytest.approx([0.6, 0.3, 0.1])
    capped = design(Search(), ROWS, np.random.default_rng(0), caps=np.array([0.5, 0.5, 0.2]))
    assert (capped <= np.array([0.5, 0.5, 0.2]) + 1e-9).all()


def test_the_proposal_is_the_laws_optimum_and_its_interval_holds_it() -> None:
    search = Search(runs=30, strength=0.001)
    mixtures, losses, rng = swarm(search, 0.005)
    found = offer(search, mixtures, losses, ROWS, rng)
    truth = best_mixture(LAW, ROWS, 0.001, 1.0, np.full(3, 1 / 3))
    assert found.mixture == pytest.approx(truth, abs=0.05)
    assert (found.low <= found.mixture + 1e-9).all() and (found.mixture <= found.high + 1e-9).all()
    assert 0 < (found.high - found.low).max() < 0.3
    assert found.loss_low <= found.loss_high and found.correlation > 0.95
    for name in ("stratified", "proportional", "best of the runs"):
        assert found.loss < found.controls[name][1], name


def test_what_noise_alone_proposes_is_not_trusted() -> None:
    search = Search(runs=30, draws=5)
    mixtures, losses, rng = swarm(search, 0.0)
    found = offer(search, mixtures, rng.permutation(losses), ROWS, rng)
    assert found.correlation < 0.6


def test_failed_runs_are_left_out_and_caps_hold() -> None:
    search, caps = Search(runs=20, draws=5), np.array([1.0, 1.0, 0.15])
    mixtures, losses, rng = swarm(search, 0.001)
    losses[3] = np.nan
    found = offer(search, mixtures, losses, ROWS, rng, caps)
    assert found.mixture[2] == pytest.approx(0.15, abs=1e-6)
    assert controls(ROWS, caps)["stratified"] == pytest.approx([0.425, 0.425, 0.15])
    losses[4:] = np.nan
    with pytest.raises(ValueError, match="needs at least 5 runs, but there are 3"):
        offer(search, mixtures, losses, ROWS, rng)


def test_fewer_runs_than_a_law_needs_are_refused_before_they_are_made() -> None:
    with pytest.raises(ValueError, match="needs at least 5 runs, but runs is 4: ask for more, 12 are good"):
        design(Search(runs=4), ROWS, np.random.default_rng(0))
    with pytest.raises(ValueError, match="draws at least 2"):
        Search(draws=1)
