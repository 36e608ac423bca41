import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.mixing import apportion, normalise


def test_one_batch_by_hand() -> None:
    # 10 rows at (0.55, 0.25, 0.2): floors 5, 2, 2; remainders .5, .5, 0; the tie goes to the first
    counts, debt = apportion(np.array([0.55, 0.25, 0.2]), 10, np.zeros(3))
    assert counts.tolist() == [6, 2, 2]
    assert debt == pytest.approx([-0.5, 0.5, 0.0])
    # the next batch pays the debt: due 5, 3, 2
    counts, debt = apportion(np.array([0.55, 0.25, 0.2]), 10, debt)
    assert counts.tolist() == [5, 3, 2]
    assert debt == pytest.approx([0, 0, 0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(1, 40), st.integers(0, 99))
@example([1.0, 1.0, 1.0, 0.0625, 0.00390625], 5, 0)  # by the largest remainder it was off by 1.006
def test_batches_are_exact_and_the_running_total_keeps_within_a_row(
    weights: list[float], batch: int, seed: int
) -> None:
    if sum(weights) <= 1e-6:
        return
    proportions, debt = normalise(weights), np.zeros(len(weights))
    given_rows = np.zeros(len(weights))
    for done in range(1, 60):
        counts, debt = apportion(proportions, batch, debt)
        assert counts.sum() == batch and (counts >= 0).all()
        given_rows += counts
        assert np.abs(given_rows - proportions * batch * done).max() <= 1 + 1e-6
        assert not given_rows[proportions == 0].any()


@given(st.integers(2, 6), st.integers(1, 32), st.integers(0, 2**31))
def test_changing_proportions_keep_the_debt_small(groups: int, batch: int, seed: int) -> None:
    rng, debt = np.random.default_rng(seed), np.zeros(groups)
    for _ in range(100):
        counts, debt = apportion(rng.dirichlet(np.full(groups, 0.5)), batch, debt)
        assert counts.sum() == batch and (counts >= 0).all()
        assert np.abs(debt).max() <= groups and abs(debt.sum()) < 1e-6


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -0.1], [np.nan, 1.0], [np.inf, 1.0]])
def test_weights_that_are_no_mixture_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be"):
        normalise(weights)
