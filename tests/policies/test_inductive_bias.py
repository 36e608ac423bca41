"""Exact inductive bias: the fact sheet's values, and what must hold of any estimate."""

import math

import numpy as np
import pytest

from shoal.policies.inductive_bias import inductive_bias, log_lower_gamma

RNG = np.random.default_rng(0)


def errors(count: int, freedom: float = 50, mean: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).chisquare(freedom, count) * mean / freedom


def test_the_tail_of_the_chi_squared_variable() -> None:
    # errors of 0.1 +- 0.02 are 50 degrees of freedom: at 0.05 there are 6.73 nats, at 0.1 0.64
    assert -log_lower_gamma(25, 0.05 / 0.002 / 2) == pytest.approx(6.73, abs=0.01)
    assert -log_lower_gamma(25, 0.1 / 0.002 / 2) == pytest.approx(0.64, abs=0.01)


def test_the_gamma_function_by_hand() -> None:
    # P(1, x) = 1 - e^-x
    for x in (1e-6, 0.3, 2.0, 30.0):
        assert log_lower_gamma(1, x) == pytest.approx(math.log(-math.expm1(-x)), rel=1e-9, abs=1e-12)
    # and P(2, x) = 1 - (1 + x) e^-x, also where it is all but 1
    assert log_lower_gamma(2, 40.0) == pytest.approx(math.log1p(-41 * math.exp(-40.0)), abs=1e-12)


def test_draws_of_the_model_give_the_value_within_the_interval() -> None:
    inside = 0
    for seed in range(20):
        found = inductive_bias(errors(100, seed=seed), 0.05, np.random.default_rng(seed))
        assert found.low <= found.nats <= found.high
        inside += found.low <= 6.73 <= found.high
    assert inside >= 16  # 95 % of the draws, less for a bootstrap of 100


def test_errors_and_target_in_another_unit_and_a_lower_target() -> None:
    given = errors(30)
    first = inductive_bias(given, 0.07, np.random.default_rng(1))
    scaled = inductive_bias(1000 * given, 70.0, np.random.default_rng(1))
    assert scaled == pytest.approx(first, rel=1e-9)
    values = [inductive_bias(given, at, np.random.default_rng(1)).nats for at in (0.05, 0.06, 0.08, 0.1, 0.2)]
    assert values == sorted(values, reverse=True) and values[-1] < 0.01


def test_labels_that_tell_less_need_more_information() -> None:
    # least squares on 12 rows of two classes, of which a share of the labels is shuffled
    found = []
    for shuffled in (0.0, 0.4):
        squared = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            side = rng.integers(0, 2, 12)
            rows = rng.normal(size=(12, 3)) + 2.0 * side[:, None]
            told = np.where(rng.random(12) < shuffled, rng.integers(0, 2, 12), side)
            weights = np.linalg.lstsq(np.c_[rows, np.ones(12)], told, rcond=None)[0]
            truth = rng.integers(0, 2, 400)
            points = rng.normal(size=(400, 3)) + 2.0 * truth[:, None]
            squared.append(float(((np.c_[points, np.ones(400)] @ weights - truth) ** 2).mean()))
        found.append(inductive_bias(squared, 0.08, np.random.default_rng(0)).nats)
    assert found[1] > 1.2 * found[0]


@pytest.mark.parametrize(
    ("given", "at", "told"),
    [
        (errors(9), 0.05, "at least 10 errors are needed, but got 9"),
        (errors(20), 0.001, "5 deviations below, got 0.001"),
        (np.full(20, 0.1), 0.1, "errors must differ"),
        (np.append(errors(20), np.nan), 0.05, "finite"),
        (errors(20), -1.0, "finite and above 0"),
    ],
)
def test_what_says_too_little_is_refused(given, at, told) -> None:
    with pytest.raises(ValueError, match=told):
        inductive_bias(given, at, RNG)
