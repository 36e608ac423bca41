import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shoal.policies.mixing import apportion, bounded, counts_within, dealt, dilution, exponentiated, normalise


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


def test_a_group_without_share_that_is_owed_nothing_gets_no_row() -> None:
    # dues of 2.999, -0.571 and 2.952 rows give 2, 0 and 2; one more each to the two that are owed nearly a row.
    # Of the groups without share the fourth is owed most of one
    proportions = np.array([0, 0.469, 0, 0, 0, 0.057, 0.474])
    debt = np.array([-0.25, -0.284, 0.55, 0.67, 0.65, -0.97, -0.366])
    counts, owed = apportion(proportions, 7, debt)
    assert counts.tolist() == [0, 3, 0, 1, 0, 0, 3] and owed[0] == -0.25


@given(st.integers(3, 8), st.integers(1, 24), st.integers(0, 2**31))
def test_no_group_gets_a_row_without_share_or_debt(groups: int, batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(60):
        weights = rng.dirichlet(np.ones(groups)) * (rng.random(groups) < 0.4)
        proportions = normalise(weights) if weights.sum() > 0 else np.eye(groups)[0]
        debt = rng.uniform(-0.7, 0.7, groups)  # as after a change of proportions
        debt -= debt.mean()
        counts, _ = apportion(proportions, batch, debt)
        assert counts.sum() == batch and not counts[(proportions == 0) & (debt <= 0)].any()


def test_rows_that_are_not_left_go_first_to_groups_that_are_trained() -> None:
    # two of ten rows are not there: the second group has room, and the third, which has most, no share
    assert counts_within(np.array([10, 5, 0]), np.array([8, 20, 1000])).tolist() == [8, 7, 0]
    assert counts_within(np.array([10, 5, 0]), np.array([8, 6, 1000])).tolist() == [8, 6, 1]


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -0.1], [np.nan, 1.0], [np.inf, 1.0]])
def test_weights_that_are_no_mixture_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be"):
        normalise(weights)


shares = st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda weights: sum(weights) > 1e-6)


@given(shares, st.integers(0, 999), st.floats(-5, 5), st.floats(0, 5))
def test_exponentiated_keeps_the_simplex_zeros_and_shifts(
    weights: list[float], seed: int, shift: float, rate: float
) -> None:
    before = normalise(weights)
    score = np.random.default_rng(seed).normal(0, 100, len(weights))  # far beyond what exp alone could take
    after = exponentiated(before, score, rate)
    assert after.sum() == pytest.approx(1) and (after >= 0).all() and not after[before == 0].any()
    assert after == pytest.approx(exponentiated(before, score + shift, rate), abs=1e-9)
    assert exponentiated(before, score, 0.0) == pytest.approx(before)


def test_exponentiated_by_hand() -> None:
    # 0.5 e^0, 0.25 e^1, 0.25 e^2 = 0.5, 0.6796, 1.8473, sum 3.0268
    found = exponentiated(np.array([0.5, 0.25, 0.25]), np.array([0.0, 2.0, 4.0]), 0.5)
    assert found == pytest.approx([0.16519, 0.22452, 0.61030], abs=1e-5)
    with pytest.raises(ValueError, match="scores must be finite"):
        exponentiated(np.array([0.5, 0.5]), np.array([np.nan, 1.0]), 0.5)


@given(shares, st.floats(0, 1), st.floats(0.01, 5), st.integers(0, 999))
def test_bounds_hold_after_normalisation(weights: list[float], floor: float, room: float, seed: int) -> None:
    wanted, groups = normalise(weights), len(weights)
    caps = np.random.default_rng(seed).dirichlet(np.ones(groups)) * (1 + room)
    least = np.minimum(floor / groups, caps)
    found = bounded(wanted, least, caps)
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert (found >= least - 1e-9).all() and (found <= caps + 1e-9).all()
    # a projection: what is inside stays, and what is between its bounds keeps its ratios
    assert bounded(found, least, caps) == pytest.approx(found, abs=1e-9)
    free = (found > least + 1e-9) & (found < caps - 1e-9) & (wanted > 1e-9)
    ratios = found[free] / wanted[free]
    assert len(ratios) == 0 or np.ptp(ratios) <= 1e-6 * ratios.max()


def test_bounds_by_hand() -> None:
    # the first is cut to 0.5; the rest grow by 0.5 / 0.3, and the second's 0.333 is then above its cap of 0.3
    assert bounded(np.array([0.7, 0.2, 0.1]), 0.0, np.array([0.5, 0.3, 1.0])) == pytest.approx([0.5, 0.3, 0.2])
    # floors: the last is lifted to 0.2, the others shrink by 0.8 / 0.9 and stay above theirs
    assert bounded(np.array([0.6, 0.3, 0.1]), 0.2, 1.0) == pytest.approx([0.5333333, 0.2666667, 0.2])
    # what the caps leave over goes to groups of share 0 as well, or there is no mixture
    assert bounded(np.array([1.0, 0.0, 0.0]), 0.0, np.array([0.4, 0.3, 0.6])) == pytest.approx([0.4, 0.2, 0.4])
    with pytest.raises(ValueError, match=r"caps, which sum to 0\.9"):
        bounded(np.array([0.5, 0.5]), 0.0, np.array([0.4, 0.5]))
    with pytest.raises(ValueError, match=r"floors, which sum to 1\.2"):
        bounded(np.array([0.5, 0.5]), 0.6, 1.0)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=7), st.integers(1, 12))
def test_a_visits_rows_are_dealt_out_exactly_and_evenly(counts: list[int], steps: int) -> None:
    rows = np.array(counts) * steps + np.arange(len(counts))  # not a multiple for each group
    rows[-1] += -rows.sum() % steps
    dealt_rows = dealt(rows, steps)
    assert dealt_rows.shape == (steps, len(counts)) and dealt_rows.sum(axis=0).tolist() == rows.tolist()
    assert (dealt_rows.sum(axis=1) == rows.sum() // steps).all()
    due = np.outer(np.arange(1, steps + 1) / steps, rows)
    assert np.abs(dealt_rows.cumsum(axis=0) - due).max() <= len(counts)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=7))
def test_rows_that_are_not_left_go_to_groups_that_have_some(pairs: list[tuple[int, int]]) -> None:
    counts, left = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    if counts.sum() > left.sum():
        with pytest.raises(ValueError, match="are left"):
            counts_within(counts, left)
        return
    kept = counts_within(counts, left)
    assert kept.sum() == counts.sum() and (kept <= left).all() and (kept >= 0).all()
    assert (kept >= np.minimum(counts, left)).all()


def test_a_mixture_is_held_against_the_best_single_group_of_each_target() -> None:
    alone = np.array([[1.0, 3.0], [2.0, 2.5]])  # (groups, targets)
    # on the first target the first group alone is better by 0.2; on the second no group is as good
    assert dilution(np.array([1.2, 2.0]), alone) == pytest.approx([0.2, -0.5])
    assert dilution(alone[0], alone) == pytest.approx([0.0, 0.5])
