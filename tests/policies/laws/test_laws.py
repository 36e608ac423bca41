"""Laws on losses that follow them, their optimum in cases that can be worked out, and what is proposed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from shoal.policies.arrays import Vector
from shoal.policies.laws import loglinear, optimum
from shoal.policies.laws.loglinear import HUBER_NATS, Law, _misfit, fit_law, log_linear, ridge
from shoal.policies.laws.olmix import collapse, expand, simulate, without
from shoal.policies.laws.optimum import best_mixture
from shoal.policies.laws.regmix import GRID, draw_mixtures, proposals, propose
from shoal.policies.mixing import bounded
from shoal.policies.ranks import spearman


def planted(groups: int, targets: int, seed: int) -> Law:
    rng = np.random.default_rng(seed)
    return Law(rng.uniform(0, 0.5, targets), rng.uniform(-2, 0.5, (targets, groups)))


def drawn(count: int, groups: int, seed: int) -> Vector:
    return np.random.default_rng(seed).dirichlet(np.ones(groups), count)


@pytest.mark.parametrize("unit", [1.0, 0.05])
def test_a_planted_law_is_recovered(unit: float) -> None:
    law, mixtures, others = planted(4, 3, 0), drawn(40, 4, 1), drawn(50, 4, 2)
    found = fit_law(mixtures, unit * law.losses(mixtures), decay=0.0)
    assert found.losses(others) == pytest.approx(unit * law.losses(others), abs=1e-6)
    centred = found.slopes - found.slopes.mean(axis=1, keepdims=True)
    assert centred == pytest.approx(law.slopes - law.slopes.mean(axis=1, keepdims=True), abs=1e-3)


def test_three_noisy_runs_a_group_predict_well() -> None:
    law, others, rng = planted(5, 4, 3), drawn(100, 5, 5), np.random.default_rng(6)
    mixtures = drawn(15, 5, 4)
    found = fit_law(mixtures, law.losses(mixtures) + 0.01 * rng.standard_normal((15, 4)))
    assert np.abs(found.losses(others) - law.losses(others)).mean() < 2e-2


def test_the_laws_gradient_is_that_of_differences() -> None:
    rng, mixtures = np.random.default_rng(0), drawn(20, 3, 7)
    point, heights = rng.normal(0, 0.5, 4), rng.uniform(1, 2, 20)
    _, gradient = _misfit(point, mixtures, heights, 0.02, 1e-3)
    for place in range(4):
        step = 1e-6 * np.eye(4)[place]
        ends = [_misfit(point + sign * step, mixtures, heights, 0.02, 1e-3)[0] for sign in (1, -1)]
        assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def uneven(runs: int, seed: int) -> tuple[Vector, Vector]:
    """Return runs of 17 groups, some of which have small shares everywhere, and noisy losses of two targets."""
    law, rng = planted(17, 2, seed), np.random.default_rng(seed)
    mixtures = draw_mixtures(np.geomspace(1.0, 0.001, 17), runs, rng)
    return mixtures, law.losses(mixtures) * np.exp(0.02 * rng.standard_normal((runs, 2)))


def test_a_fit_ends_at_a_minimum_also_where_some_groups_were_hardly_sampled() -> None:
    mixtures, losses = uneven(200, 0)
    found = fit_law(mixtures, losses)
    for target in range(2):
        level = float(np.median(losses[:, target]))
        given = mixtures, losses[:, target] / level, HUBER_NATS / level, 1e-6
        point = np.append(found.floors[target], found.slopes[target]) - np.log(level)
        theirs = minimize(_misfit, point, given, jac=True, method="BFGS", options={"gtol": 1e-9})
        assert _misfit(point, *given)[0] <= theirs.fun + 1e-8
        assert np.exp(mixtures @ point[1:]) == pytest.approx(np.exp(mixtures @ theirs.x[1:]), abs=1e-4)


def test_a_fit_that_has_not_ended_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    mixtures, losses = uneven(40, 1)
    monkeypatch.setattr(loglinear, "ROUNDS", 1)
    monkeypatch.setattr(loglinear, "ITERATIONS", 3)
    with pytest.warns(RuntimeWarning, match="has not converged"):
        fit_law(mixtures, losses)


@pytest.mark.parametrize("unit", [0.1, 1.0, 10.0])
def test_runs_that_went_wrong_hardly_count_whatever_the_losses_level(unit: float) -> None:
    law, mixtures = planted(3, 1, 0), drawn(60, 3, 0)
    losses = unit * law.losses(mixtures)
    wrong = losses.copy()
    wrong[::10] += 0.5  # nats: 25 widths of the Huber loss
    found = fit_law(mixtures, wrong, decay=0.0)
    assert np.abs(found.losses(mixtures) - losses).max() < 0.02


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="a law of 5 groups needs at least 7 runs, but there are 6"):
        fit_law(drawn(6, 5, 0), np.ones((6, 1)))


def test_the_best_of_two_groups_is_the_closed_form() -> None:
    # losses c1 + exp(k1 p + b1) and c2 + exp(k2 (1 - p) + b2); b is taken up by the slopes
    (k1, b1), (k2, b2) = (-3.0, 0.5), (-1.0, 0.2)
    law = Law(np.zeros(2), np.array([[k1 + b1, b1], [b2, k2 + b2]]))
    expected = (k2 + b2 - b1 + np.log(k2 / k1)) / (k1 + k2)
    assert 0 < expected < 1
    assert best_mixture(law, np.ones(2)) == pytest.approx([expected, 1 - expected], abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(1, 5), st.floats(0, 2), st.floats(0.05, 3), st.integers(0, 999))
def test_two_solvers_agree_on_the_optimum(
    groups: int, targets: int, strength: float, room: float, seed: int
) -> None:
    law, rng = planted(groups, targets, seed), np.random.default_rng(seed)
    prior, caps = (
        rng.dirichlet(np.full(groups, 3.0)),
        np.minimum(rng.dirichlet(np.ones(groups) * 2) * (1 + room), 1),
    )
    if caps.sum() < 1.01:
        return

    def objective(at: Vector) -> float:
        at = np.maximum(at, 1e-300)
        return float(np.exp(law.slopes @ at).sum() + strength * (at @ np.log(at / prior)))

    ours = best_mixture(law, prior, strength, caps)
    assert ours.sum() == pytest.approx(1) and (ours <= caps + 1e-9).all() and (ours >= 0).all()
    theirs = minimize(
        objective,
        bounded(prior, 0.0, caps),
        method="SLSQP",
        bounds=[(0, cap) for cap in caps],
        constraints={"type": "eq", "fun": lambda at: at.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert objective(ours) <= objective(theirs.x) + 1e-6


def test_free_shares_have_one_multiplier_and_capped_ones_a_lower_slope() -> None:
    law, prior = planted(6, 4, 1), np.full(6, 1 / 6)
    caps = np.array([0.1, 0.2, 0.5, 0.5, 0.5, 0.5])
    found = best_mixture(law, prior, 0.3, caps)
    slope = law.slopes.T @ np.exp(law.slopes @ found) + 0.3 * np.log(found / prior)
    free = found < caps - 1e-6
    assert np.ptp(slope[free]) < 1e-5 and (slope[~free] <= slope[free].min() + 1e-6).all() and free.sum() < 6


def test_a_strong_prior_is_returned_within_its_caps() -> None:
    law, prior = planted(4, 3, 2), np.array([0.4, 0.3, 0.2, 0.1])
    assert best_mixture(law, prior, 1e6) == pytest.approx(prior, abs=1e-5)
    caps = np.array([0.25, 1, 1, 1.0])
    assert best_mixture(law, prior, 1e6, caps) == pytest.approx(bounded(prior, 0.0, caps), abs=1e-5)
    assert best_mixture(law, np.array([0.5, 0.5, 0, 0]), 0.1)[2:].tolist() == [0, 0]
    with pytest.raises(ValueError, match="caps, which sum to"):
        best_mixture(law, prior, 0.0, 0.2)


def test_small_slopes_make_a_linear_law_whose_best_is_a_corner() -> None:
    law = Law(np.zeros(1), 1e-3 * np.array([[0.3, -0.5, 0.1]]))
    assert best_mixture(law, np.ones(3)) == pytest.approx([0, 1, 0], abs=1e-5)
    # exp(k + s p) is k + s p to first order
    mixtures = drawn(5, 3, 0)
    assert law.losses(mixtures)[:, 0] == pytest.approx(2 + mixtures @ law.slopes[0], abs=1e-6)


@pytest.mark.parametrize("steep", [15.0, 22.0, 26.0, 30.0, 40.0, 107.0, 800.0])
def test_a_steep_group_does_not_stop_the_search(steep: float) -> None:
    # exp(-x0 + steep x1) is least at (1, 0, 0)
    found = best_mixture(Law(np.zeros(1), np.array([[-1.0, steep, 0.0]])), np.ones(3))
    assert found == pytest.approx([1, 0, 0], abs=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(1, 6), st.floats(-2, 2.5), st.integers(0, 9999))
def test_no_mixture_is_better_by_more_than_the_gap(groups: int, targets: int, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 10, (targets, 1))  # a factor of each loss
    law = Law(np.zeros(targets), rng.normal(0, 10**size, (groups, targets)).T + shift)
    strength, caps = float(rng.choice([0.0, 0.05, 1e4])), np.minimum(rng.dirichlet(np.ones(groups)) * 3, 1.0)
    if caps.sum() < 1.01:
        return
    prior = rng.dirichlet(np.full(groups, 2.0)) + 1e-9
    found = best_mixture(law, prior, strength, caps)
    falling = np.exp(law.slopes @ found)
    slope = law.slopes.T @ falling + strength * np.log(np.maximum(found, 1e-300) / prior)
    # the objective is convex, so its value anywhere is at least what the slope here says: least in a corner
    corner, left = np.zeros(groups), 1.0
    for group in np.argsort(slope):
        corner[group] = min(caps[group], left)
        left -= corner[group]
    assert slope @ (found - corner) <= 1e-7 * (falling.sum() + strength)
    assert found.sum() == pytest.approx(1) and (found <= caps + 1e-12).all()


def test_an_optimum_that_is_not_found_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum, "NEWTON", 1)
    with pytest.raises(ArithmeticError, match="found no optimum"):
        best_mixture(planted(6, 4, 1), np.full(6, 1 / 6))


def test_a_group_without_effect_leaves_the_others_ratios() -> None:
    law, prior = planted(3, 2, 5), np.array([0.5, 0.3, 0.2])
    found = best_mixture(law, prior, 0.5, np.array([1.0, 1.0, 1.0]))
    # a copy of all slopes' mixture-weighted mean: moving share to it changes no loss at the optimum
    neutral = law.slopes @ found
    wider = Law(law.floors, np.column_stack([law.slopes, neutral]))
    with_it = best_mixture(wider, np.append(0.9 * prior, 0.1), 0.5)
    assert with_it[:3] / with_it[:3].sum() == pytest.approx(found, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(0, 999))
def test_drawn_mixtures_keep_grid_caps_and_sum(groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(groups))
    caps = np.clip(prior * 4, 0.5, 1.0)
    found = draw_mixtures(prior, 20, rng, caps=caps)
    assert found.shape == (20, groups) and found.sum(axis=1) == pytest.approx(np.ones(20))
    assert (found <= np.minimum(caps, 15 * prior) + 1e-9).all()
    assert np.abs(found / GRID - np.round(found / GRID)).max() < 1e-6
    assert len(np.unique(found, axis=0)) == 20


def test_draws_cannot_be_had_where_nothing_fits() -> None:
    with pytest.raises(ValueError, match="only 0 of 3"):
        draw_mixtures(np.ones(3), 3, np.random.default_rng(0), caps=0.3)


def test_the_mean_of_the_best_is_near_the_optimum() -> None:
    law, rng = planted(4, 1, 8), np.random.default_rng(0)
    mixtures = draw_mixtures(np.ones(4), 60, rng)
    noisy = law.losses(mixtures) + 1e-3 * rng.standard_normal((60, 1))
    predict = log_linear(mixtures, noisy)
    candidates = rng.dirichlet(np.full(4, 0.5), 20_000)
    found = propose(lambda at: predict(at)[:, 0], candidates, 100)
    best = best_mixture(law, np.ones(4))
    assert law.losses(found[None])[0, 0] <= law.losses(best[None])[0, 0] + 0.02
    # with all candidates there are and only the best one, it is the law's own optimum
    single = propose(lambda at: predict(at)[:, 0], np.vstack([candidates, best]), 1)
    assert law.losses(single[None]) == pytest.approx(law.losses(best[None]), abs=1e-3)


def test_groups_in_another_order_give_the_proposal_in_that_order() -> None:
    law, order = planted(4, 3, 9), np.array([2, 0, 3, 1])
    mixtures = drawn(30, 4, 1)
    losses = law.losses(mixtures)
    straight = best_mixture(fit_law(mixtures, losses), np.ones(4), 0.1)
    turned = best_mixture(fit_law(mixtures[:, order], losses), np.ones(4), 0.1)
    assert turned == pytest.approx(straight[order], abs=1e-4)
    assert ridge(mixtures[:, order], losses)(mixtures[:, order]) == pytest.approx(
        ridge(mixtures, losses)(mixtures)
    )


def test_on_shuffled_losses_no_regression_predicts() -> None:
    law, rng, others = planted(4, 1, 10), np.random.default_rng(1), drawn(500, 4, 3)
    mixtures = drawn(200, 4, 2)
    found = []
    for _ in range(100):
        predict = ridge(mixtures, rng.permutation(law.losses(mixtures)))
        found.append(spearman(predict(others)[:, 0], law.losses(others)[:, 0]))
    assert abs(np.mean(found)) < 0.2  # one is far from 0 with either sign; their mean is not
    for regress in (ridge, log_linear):
        predict = regress(mixtures, law.losses(mixtures))
        assert spearman(predict(others)[:, 0], law.losses(others)[:, 0]) > 0.8


def test_proposals_of_other_draws_surround_the_optimum() -> None:
    law, rng = planted(3, 3, 11), np.random.default_rng(2)
    mixtures = drawn(40, 3, 3)
    noisy = law.losses(mixtures) + 0.02 * rng.standard_normal((40, 3))

    def whole(some: Vector, losses: Vector) -> Vector:
        return best_mixture(fit_law(some, losses, near=law), np.ones(3), 0.05)

    found = proposals(whole, mixtures, noisy, 20, rng)
    low, high = np.quantile(found, [0.05, 0.95], axis=0)
    truth = best_mixture(law, np.ones(3), 0.05)
    assert found.shape == (20, 3) and (low - 0.05 <= truth).all() and (truth <= high + 0.05).all()
    assert (high - low).max() > 1e-3


def test_simulation_comes_near_the_exact_proposal() -> None:
    law, prior, rng = planted(5, 3, 12), np.full(5, 0.2), np.random.default_rng(0)
    caps = np.array([0.3, 0.5, 0.5, 0.5, 0.5])
    predict = lambda at: law.losses(at).sum(axis=1)  # noqa: E731
    found = simulate(predict, prior, rng, 800, caps, anchor=0.0)
    exact = best_mixture(law, prior, 0.0, caps)
    assert predict(found[None])[0] <= predict(exact[None])[0] + 5e-3 and (found <= caps + 1e-9).all()
    half = simulate(predict, prior, np.random.default_rng(0), 800, caps, anchor=0.5)
    assert half == pytest.approx((found + prior) / 2, abs=1e-9)


def test_a_simulation_closes_in_on_what_is_best() -> None:
    # a narrow bowl around one mixture, whose middle is 1: of draws from all over hardly one comes within 1e-3
    law_like, rounds = np.array([0.05, 0.1, 0.15, 0.2, 0.2, 0.3]), []

    def predict(at: Vector) -> Vector:
        rounds.append(at)
        return 1 + 0.5 * ((at - law_like) ** 2).sum(axis=1)

    found = simulate(predict, np.full(6, 1 / 6), np.random.default_rng(0), 400, anchor=0.0)
    assert found == pytest.approx(law_like, abs=0.01)
    # each round draws half as far from its centre as two before: by a root of two each, nine times 22 in all
    spreads = [float(np.std(drawn - drawn.mean(axis=0))) for drawn in rounds[1:]]
    assert spreads[-1] < spreads[0] / 15


def test_frozen_groups_are_one_and_come_back() -> None:
    mixtures = drawn(6, 5, 0)
    for frozen in ([1], [3, 0], [0, 1, 2]):
        for mixture in mixtures:
            again = expand(collapse(mixture[None], frozen)[0], frozen, mixture[frozen])
            assert again == pytest.approx(mixture)
    # removing a group keeps the others' ratios: (0.2, 0.5) of 0.7
    assert without(np.array([0.2, 0.3, 0.5]), 1) == pytest.approx([2 / 7, 0, 5 / 7])


def test_ranks_by_hand() -> None:
    # ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8; ties share their mean rank
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 30, 20, 40])) == pytest.approx(0.8)
    tied = spearman(np.array([1.0, 1, 2]), np.array([1.0, 2, 3]))
    assert tied == pytest.approx(np.sqrt(3) / 2)
    assert np.isnan(spearman(np.ones(3), np.arange(3.0)))
