"""Selection policies: a contract for all of them, each one by hand, and the tests of the fact sheet."""

import itertools
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.policies.sampling.chance import uniform
from shoal.policies.selection.calibration import calibrated
from shoal.policies.selection.cuts import RandomRows, ScoreThreshold, Top
from shoal.policies.selection.dsir import HELD_OF, HELD_RATIO, Dsir
from shoal.policies.selection.influence import Influence
from shoal.policies.selection.interface import NOT_FINITE, Candidates, select_rows
from shoal.policies.selection.picking import best_rows, mixed_scores, quotas
from shoal.policies.selection.quantise import Quantise, graph_cut_bins, unit_rows
from shoal.policies.selection.rules import SELECTORS
from shoal.policies.selection.small_loss import SmallLoss, noise_chances
from shoal.policies.selection.tarot import Tarot, copies_by_use, nearest_rows, unit_distances, whiten, whitened
from shoal.policies.selection.transport import transport

ROWS = 300
RNG = np.random.default_rng(0)
IDS = RNG.permutation(10**6)[:ROWS]
COLUMNS = {
    "score": np.round(RNG.normal(size=ROWS), 1).astype(np.float32),  # with ties
    "loss": np.where(RNG.random(ROWS) < 0.2, 3 + RNG.normal(0, 0.3, ROWS), RNG.exponential(0.3, ROWS)),
    "log_ratio": RNG.normal(0, 2, (ROWS, 2)),
    "length": RNG.integers(50, 200, ROWS),
    "embedding": RNG.normal(size=(ROWS, 5)),
    "sketch": RNG.normal(size=(ROWS, 4)),
    "influence": RNG.normal(size=(ROWS, 2)),
}
TARGETS = {
    "sketch": RNG.normal(1.0, 0.5, (12, 4)),
    "embedding": np.random.default_rng(4).normal(1.0, 0.5, (12, 5)),
    "mass": np.array([3.0, 1.0]),
    HELD_RATIO: np.random.default_rng(5).normal(2.0, 2.0, (30, 2)),
    HELD_OF: np.arange(30) % 2,
}
GROUP = RNG.integers(0, 3, ROWS)
POLICIES = [
    RandomRows(),
    Top(),
    Top("loss", largest=False),
    ScoreThreshold(share=0.3),
    ScoreThreshold(share=0.3, by_group=True),
    ScoreThreshold(cut=0.5),
    ScoreThreshold("loss", cut=1.0, largest=False),
    Dsir(),
    Dsir(temperature=0, least_length=100),
    Dsir(calibrated=True),
    Quantise(bins=4),
    Quantise(bins=4, shard_rows=64, by_group=True),
    SmallLoss(),
    SmallLoss(by_group=True),
    Influence(),
    Influence(over="max"),
    Tarot(folds=3),
    Tarot(folds=3, vectors="embedding"),
    Tarot(folds=3, repeat=True),
]
each = pytest.mark.parametrize("policy", POLICIES, ids=repr)


def pool(policy, **changes) -> Candidates:
    budget = 90 if policy.budget == "needed" else None
    found = Candidates(IDS, COLUMNS, GROUP, TARGETS, budget, seed=3)
    return found._replace(**changes)


def shuffled(given: Candidates, order) -> Candidates:
    columns = {name: values[order] for name, values in given.columns.items()}
    return given._replace(ids=given.ids[order], columns=columns, group=given.group[order])


def chosen_ids(found, ids) -> set[int]:
    return set(ids[found.copies > 0].tolist())


def test_every_policy_is_tested() -> None:
    assert {type(policy) for policy in POLICIES} == set(SELECTORS.values())


@each
class TestContract:
    def test_the_order_of_the_rows_decides_nothing(self, policy) -> None:
        whole = select_rows(policy, pool(policy))
        order = np.random.default_rng(1).permutation(ROWS)
        found = select_rows(policy, shuffled(pool(policy), order))
        assert np.array_equal(found.copies, whole.copies[order])
        assert np.array_equal(found.margin, whole.margin[order], equal_nan=True)
        assert [found.why(place) for place in range(ROWS)] == [whole.why(place) for place in order]

    def test_the_same_pool_gives_the_same_rows_also_when_the_policy_has_travelled(self, policy) -> None:
        first = select_rows(policy, pool(policy))
        second = select_rows(pickle.loads(pickle.dumps(policy)), pool(policy))
        assert np.array_equal(first.copies, second.copies) and first.facts == second.facts

    def test_a_budget_is_met_exactly_and_every_row_has_a_reason(self, policy) -> None:
        found = select_rows(policy, pool(policy))
        assert found.copies.dtype == np.int32 and found.copies.min() >= 0
        assert policy.budget != "needed" or found.rows == 90
        assert 0 < found.rows < ROWS or isinstance(policy, Tarot)
        assert all(found.why(place) for place in range(ROWS))
        said_of_chosen = {found.why(place) for place in np.flatnonzero(found.copies)}
        said_of_others = {found.why(place) for place in np.flatnonzero(found.copies == 0)}
        assert not said_of_chosen & said_of_others

    def test_what_is_chosen_lies_at_the_cut_or_above_it(self, policy) -> None:
        if isinstance(policy, Tarot):
            return  # it cuts by layers
        found = select_rows(policy, pool(policy))
        assert (found.margin[found.copies > 0] >= 0).all()
        # of equal scores some may be left out
        assert not (found.margin[found.copies == 0] > 0).any()

    def test_rows_whose_scores_are_not_finite_are_left_out_with_that_reason(self, policy) -> None:
        if not policy.needs:
            return
        broken = {name: values.astype(np.float64).copy() for name, values in COLUMNS.items()}
        for name in policy.needs:
            broken[name][:20] = np.nan
            broken[name][20:25] = np.inf
        found = select_rows(policy, pool(policy, columns=broken))
        assert (found.copies[:25] == 0).all()
        assert {found.why(place) for place in range(25)} == {NOT_FINITE}
        rest = np.arange(25, ROWS)
        alone = select_rows(policy, shuffled(pool(policy), rest))
        assert np.array_equal(found.copies[25:], alone.copies)

    def test_a_lower_budget_and_a_budget_above_the_pool(self, policy) -> None:
        if policy.budget == "none":
            with pytest.raises(ValueError, match="give it no budget"):
                select_rows(policy, pool(policy, budget=5))
            return
        with pytest.raises(ValueError, match="at most the 300 rows that can be chosen"):
            select_rows(policy, pool(policy, budget=ROWS + 1))
        if policy.budget == "needed":
            with pytest.raises(ValueError, match="needs a budget"):
                select_rows(policy, pool(policy, budget=None))

    def test_a_missing_column_and_a_repeated_id_are_named(self, policy) -> None:
        for name in policy.needs:
            less = {key: values for key, values in COLUMNS.items() if key != name}
            with pytest.raises(ValueError, match=f"the pool must have the column {name}"):
                select_rows(policy, pool(policy, columns=less))
        for name in policy.aims:
            with pytest.raises(ValueError, match=f"the target must have the column {name}"):
                select_rows(policy, pool(policy, targets={}))
            with pytest.raises(ValueError, match="in at least one row"):
                select_rows(policy, pool(policy, targets={**TARGETS, name: np.empty((0, 4))}))
        twice = IDS.copy()
        twice[7] = twice[8]
        with pytest.raises(ValueError, match=f"two have {twice[7]}"):
            select_rows(policy, pool(policy, ids=twice))

    def test_global_random_numbers_are_left_alone(self, policy) -> None:
        before = np.random.get_state()[1].tolist()
        select_rows(policy, pool(policy))
        assert before == np.random.get_state()[1].tolist()


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_pool_in_any_order_gives_the_same_rows(data) -> None:
    rows = data.draw(st.integers(1, 40))
    ids = np.array(data.draw(st.lists(st.integers(0, 2**62), min_size=rows, max_size=rows, unique=True)))
    scores = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), min_size=rows, max_size=rows))
    )
    usable = int(np.isfinite(scores).sum())
    if not usable:
        return
    budget = data.draw(st.integers(1, usable))
    given_ = Candidates(ids, {"score": scores, "log_ratio": scores, "loss": scores}, ids % 2, {}, budget)
    order = np.array(data.draw(st.permutations(range(rows))))
    for policy in (RandomRows(), Top(), Dsir(), Dsir(0.0)):
        whole, other = select_rows(policy, given_), select_rows(policy, shuffled(given_, order))
        assert whole.rows == budget and np.array_equal(other.copies, whole.copies[order])
    for policy in (ScoreThreshold(share=0.5, by_group=True), SmallLoss()):
        free = given_._replace(budget=None)
        whole, other = select_rows(policy, free), select_rows(policy, shuffled(free, order))
        assert np.array_equal(other.copies, whole.copies[order])


def most_held(policy, rows: int) -> int:
    """Return the most bytes that a decision takes beside what it was given."""
    given_ = Candidates(np.arange(rows), {"log_ratio": RNG.normal(size=rows)}, np.zeros(rows, np.int16), {}, 9)
    tracemalloc.start()
    select_rows(policy, given_)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_a_decision_takes_few_bytes_of_each_row() -> None:
    # a key, which becomes the margin, a copy of the keys to find the largest, and some masks
    for policy in (RandomRows(), Top("log_ratio"), Dsir(), Influence("log_ratio")):
        assert most_held(policy, 300_000) - most_held(policy, 200_000) < 20 * 100_000


class TestPicking:
    def test_of_equal_keys_the_first_are_the_best(self) -> None:
        # 9 is chosen, and of the three 5s the first two
        assert best_rows(np.array([5.0, 1.0, 9.0, 5.0, 5.0]), 3).tolist() == [True, False, True, True, False]
        assert not best_rows(np.array([1.0, 2.0]), 0).any() and best_rows(np.array([1.0, 2.0]), 3).all()
        for count in range(9):
            key = RNG.integers(0, 3, 8).astype(float)
            first = np.zeros(8, bool)
            first[np.argsort(-key, kind="stable")[:count]] = True
            assert best_rows(key, count).tolist() == first.tolist()

    def test_quotas_by_hand(self) -> None:
        # 10 rows at 1/2, 1/3, 1/6: 5, 3.33, 1.67; the row left over goes to the largest remainder
        assert quotas(np.array([3.0, 2.0, 1.0]), 10, np.array([99, 99, 99])).tolist() == [5, 3, 2]
        # the last has room for one row only
        assert quotas(np.array([3.0, 2.0, 1.0]), 10, np.array([99, 99, 1])).sum() == 10

    def test_a_mix_of_scores_by_hand(self) -> None:
        # ranks 0, 1/2, 1 of the first and 1, 1/2, 0 of the second
        columns = {"a": np.array([1.0, 5.0, 900.0]), "b": np.array([3.0, 2.0, 1.0])}
        assert mixed_scores(columns, {"a": 2.0, "b": 1.0}).tolist() == [1.0, 1.5, 2.0]
        columns["a"][1] = np.nan
        assert np.isnan(mixed_scores(columns, {"a": 2.0, "b": 1.0})).tolist() == [False, True, False]


class TestCuts:
    def test_random_rows_by_hand(self) -> None:
        ids = np.arange(4)
        u = uniform(3, "random", 0, ids)
        found = select_rows(RandomRows(), Candidates(ids, {}, ids, budget=2, seed=3))
        assert np.flatnonzero(found.copies).tolist() == sorted(np.argsort(u)[:2].tolist())
        other = select_rows(RandomRows(), Candidates(IDS, {}, GROUP, budget=90, seed=4))
        assert chosen_ids(other, IDS) != chosen_ids(select_rows(RandomRows(), pool(RandomRows())), IDS)

    def test_top_by_hand(self) -> None:
        columns = {"score": np.array([1.0, 3.0, 2.0, 3.0])}
        given_ = Candidates(np.array([9, 8, 7, 6]), columns, np.zeros(4, int), budget=2)
        found = select_rows(Top(), given_)
        # both rows of score 3: a cut of 3, from which the others lie 2 and 1 away
        assert found.copies.tolist() == [0, 1, 0, 1] and found.margin.tolist() == [-2.0, 0.0, -1.0, 0.0]
        assert found.facts == {"cut": 3.0} and found.why(0) == "beyond the budget"
        # of the two the one of least id
        assert select_rows(Top(), given_._replace(budget=1)).copies.tolist() == [0, 0, 0, 1]
        assert select_rows(Top(largest=False), given_).copies.tolist() == [1, 0, 1, 0]

    def test_a_threshold_by_hand(self) -> None:
        columns = {"score": np.array([1.0, 3.0, 2.0, 30.0, 20.0, 10.0])}
        given_ = Candidates(np.arange(6), columns, np.array([0, 0, 0, 1, 1, 1]))
        assert select_rows(ScoreThreshold(cut=3.0), given_).copies.tolist() == [0, 1, 0, 1, 1, 1]
        assert select_rows(ScoreThreshold(share=0.5), given_).copies.tolist() == [0, 0, 0, 1, 1, 1]
        found = select_rows(ScoreThreshold(share=1 / 3, by_group=True), given_)
        assert found.copies.tolist() == [0, 1, 0, 1, 0, 0] and found.facts == {"cut_0": 3.0, "cut_1": 30.0}

    @pytest.mark.parametrize(
        "given_", [{}, {"share": 0.5, "cut": 1.0}, {"share": 0.0}, {"cut": 1.0, "by_group": True}]
    )
    def test_a_threshold_needs_one_cut(self, given_) -> None:
        with pytest.raises(ValueError, match="must be"):
            ScoreThreshold(**given_)

    def test_precision_on_a_planted_quality_is_as_computed(self) -> None:
        rng, rows = np.random.default_rng(5), 200_000
        quality = rng.normal(size=rows)
        noisy = quality + rng.normal(size=rows)
        found = select_rows(
            ScoreThreshold(share=0.15), Candidates(np.arange(rows), {"score": noisy}, np.zeros(rows, int))
        )
        best = quality >= np.quantile(quality, 0.85)
        # P(quality is of the top 15 % | score is), correlation 1/sqrt 2, by the bivariate normal integral
        z = np.linspace(-8, 8, 4001)
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        cut = 1.0364333895
        passing = np.array([0.5 * math.erfc((cut * math.sqrt(2) - value) / math.sqrt(2)) for value in z])
        expected = float((density * passing * (z >= cut)).sum() * (z[1] - z[0])) / 0.15
        assert best[found.copies > 0].mean() == pytest.approx(expected, abs=0.01)


class TestDsir:
    def test_by_hand(self) -> None:
        ids, ratio = np.arange(4), np.array([0.0, 1.0, 2.0, 3.0])
        noise = -np.log(-np.log(uniform(3, "dsir 0", 0, ids)))
        given_ = Candidates(ids, {"log_ratio": ratio}, ids, budget=2, seed=3)
        found = select_rows(Dsir(), given_)
        assert np.flatnonzero(found.copies).tolist() == sorted(np.argsort(-(ratio + noise))[:2].tolist())
        assert select_rows(Dsir(temperature=0.0), given_).copies.tolist() == [0, 0, 1, 1]
        # two targets of equal mass: each takes its best, and none takes a row of another
        both = np.array([[5.0, 5.0], [4.0, 0.0], [0.0, 4.5], [0.0, 0.0]])
        found = select_rows(Dsir(temperature=0.0), given_._replace(columns={"log_ratio": both}))
        assert found.copies.tolist() == [1, 0, 1, 0] and found.facts == {"cut_0": 5.0, "cut_1": 4.5}

    def test_short_rows_go_before_the_budget_is_spent(self) -> None:
        columns = {"log_ratio": np.array([9.0, 1.0, 0.0]), "length": np.array([99, 100, 101])}
        given_ = Candidates(np.arange(3), columns, np.zeros(3, int), budget=2)
        found = select_rows(Dsir(0.0, least_length=100), given_)
        assert found.copies.tolist() == [0, 1, 1] and found.why(0) == "too short"
        with pytest.raises(ValueError, match="at most the 1 rows of least_length"):
            select_rows(Dsir(0.0, least_length=101), given_)

    def test_the_drawn_sets_have_the_law_of_drawing_one_by_one(self) -> None:  # G2
        weights, draws = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 40_000
        columns = np.log(weights)
        # many pools of 5 rows each, with ids of their own: their draws are independent
        noise = -np.log(-np.log(uniform(0, "dsir 0", 0, np.arange(5 * draws)))).reshape(draws, 5)
        rule = Dsir()
        first = select_rows(rule, Candidates(np.arange(5), {"log_ratio": columns}, np.zeros(5, int), budget=2))
        taken = np.sort(np.argsort(-(columns + noise), axis=1)[:, :2], axis=1)
        assert np.flatnonzero(first.copies).tolist() == taken[0].tolist()
        apart = 0.0
        for pair in itertools.combinations(range(5), 2):
            p = [weights[place] / weights.sum() for place in pair]
            expected = p[0] * weights[pair[1]] / (weights.sum() - weights[pair[0]])
            expected += p[1] * weights[pair[0]] / (weights.sum() - weights[pair[1]])
            apart += abs(float((taken == pair).all(axis=1).mean()) - expected) / 2
        assert apart < 0.01

    def test_equal_weights_choose_uniformly(self) -> None:
        hits = np.zeros(50)
        for seed in range(400):
            given_ = Candidates(
                np.arange(50), {"log_ratio": np.zeros(50)}, np.zeros(50, int), budget=10, seed=seed
            )
            hits += select_rows(Dsir(), given_).copies
        assert (np.abs(hits / 400 - 0.2) < 4 * math.sqrt(0.16 / 400)).all()


class TestCalibration:
    def test_by_hand(self) -> None:
        # in order 0, 1, (1.5), 2, (2.5, 2.6), 3, 4, with the target's in brackets: one row of
        # the target for the row 2, two for the rows 3 and 4, and half a row for 0 and 1
        found = calibrated(np.array([3.0, 0.0, 2.0, 1.0, 4.0]), np.array([2.6, 1.5, 2.5]))
        assert np.exp(found).tolist() == pytest.approx([1.0, 0.25, 1.0, 0.25, 1.0])

    def test_odds_that_would_fall_are_pooled_by_hand(self) -> None:
        # 1, (1.5, 1.6), 2, (2.5), 3, 4, (4.5), 5: two for the row 2, then one for 3 and 4, so three for them
        found = calibrated(np.arange(1.0, 6.0), np.array([1.5, 1.6, 2.5, 4.5]))
        assert np.exp(found).tolist() == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0])

    def test_it_is_the_isotonic_regression_of_another_library(self) -> None:
        regression = pytest.importorskip("scipy.optimize").isotonic_regression
        rng = np.random.default_rng(2)
        pool_, theirs = rng.normal(0.0, 1.0, 3000), rng.normal(1.5, 0.7, 400)
        both, is_theirs = np.concatenate([theirs, pool_]), np.arange(3400) < 400
        order = np.argsort(both, kind="stable")
        fitted = np.empty(3400)
        fitted[order] = regression(is_theirs[order].astype(float)).x
        odds = (fitted / (1 - fitted).clip(min=1e-12))[400:]
        found = np.exp(calibrated(pool_, theirs))
        assert found[odds > 0] == pytest.approx(odds[odds > 0])
        assert (found[odds == 0] <= odds[odds > 0].min() / 2).all()

    def test_a_target_that_lies_apart_and_none(self) -> None:
        assert np.ptp(calibrated(np.arange(4.0), np.array([9.0, 10.0]))) == 0
        assert np.ptp(calibrated(np.arange(4.0), np.array([-2.0, -1.0]))) == 0
        with pytest.raises(ValueError, match="at least one held-out row"):
            calibrated(np.arange(4.0), np.empty(0))

    def test_rows_typical_of_the_target_are_drawn_alike_where_a_log_ratio_is_too_sure(self) -> None:
        rng = np.random.default_rng(4)
        # a fifth of the pool is of the target's kind; log ratios are 100 times too large
        kind = np.arange(5000) < 1000
        ratio = 100 * np.where(kind, rng.normal(2, 1, 5000), rng.normal(-2, 1, 5000))
        aimed = {HELD_RATIO: 100 * rng.normal(2, 1, 500)}
        given_ = Candidates(np.arange(5000), {"log_ratio": ratio}, np.zeros(5000, int), aimed, 400)
        plain, found = (select_rows(rule, given_).copies > 0 for rule in (Dsir(), Dsir(calibrated=True)))
        assert ratio[plain].mean() > 290 and kind[plain].all()
        assert ratio[found].mean() == pytest.approx(200, abs=20) and kind[found].mean() > 0.9

    def test_without_noise_ties_would_decide(self) -> None:
        with pytest.raises(ValueError, match="temperature must be above 0 with calibrated"):
            Dsir(temperature=0.0, calibrated=True)


def greedy_by_matrix(unit: np.ndarray, bins: int) -> np.ndarray:
    """GraphCut's greedy choice with the whole matrix of similarities."""
    similar, numbers = unit @ unit.T, np.full(len(unit), bins - 1)
    left = list(range(len(unit)))
    for number, part in enumerate(np.array_split(np.arange(len(unit)), bins)[:-1]):
        whole, picked = list(left), []
        for _ in part:
            gains = [similar[row, whole].sum() - 2 * similar[row, picked].sum() for row in left]
            most = max(gains)
            row = left[next(place for place, gain in enumerate(gains) if gain >= most - 1e-9)]
            picked.append(row)
            left.remove(row)
        numbers[picked] = number
    return numbers


class TestQuantise:
    def test_by_hand(self) -> None:
        # three rows point one way and one another: row 0 has gain 3; then 1 and 2 have 3 - 2 = 1, row 3 has 1
        unit = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        assert graph_cut_bins(unit, 2).tolist() == [0, 0, 1, 1]

    def test_the_picks_are_those_of_the_whole_matrix(self) -> None:  # G8
        unit = unit_rows(np.random.default_rng(1).normal(size=(120, 6)))
        unit[40:50] = unit[7]  # equal rows
        assert np.array_equal(graph_cut_bins(unit, 5), greedy_by_matrix(unit, 5))

    def test_bins_share_the_pool_out_and_a_full_budget_returns_it(self) -> None:
        found = select_rows(Quantise(bins=7), pool(Quantise(), budget=ROWS))
        assert found.rows == ROWS
        assert sum(found.facts.values()) == ROWS and max(found.facts.values()) - min(found.facts.values()) <= 1

    def test_each_bin_gives_the_same_share(self) -> None:
        found = select_rows(Quantise(bins=10), pool(Quantise(), budget=90))
        drawn = [found.why(place).removeprefix("drawn from ") for place in np.flatnonzero(found.copies)]
        assert sorted(drawn.count(f"bin {number}") for number in range(10)) == [9] * 10

    def test_the_first_picks_come_from_the_larger_cluster_and_all_is_covered(self) -> None:
        rng = np.random.default_rng(2)
        far = np.concatenate([rng.normal((9, 0, 1), 0.3, (80, 3)), rng.normal((0, 9, -1), 0.3, (20, 3))])
        numbers = graph_cut_bins(unit_rows(far), 10)
        assert numbers[:80].min() == 0 and (numbers[80:] == 0).sum() <= (numbers[:80] == 0).sum()
        ids = np.arange(100)
        radius = {}
        for policy in (Quantise(), RandomRows()):
            found = []
            for seed in range(20):
                given_ = Candidates(ids, {"embedding": far}, np.zeros(100, int), budget=10, seed=seed)
                chosen = far[select_rows(policy, given_).copies > 0]
                found.append(np.linalg.norm(far[:, None] - chosen, axis=2).min(axis=1).max())
            radius[type(policy)] = np.mean(found)
        assert radius[Quantise] <= radius[RandomRows]


class TestSmallLoss:
    def losses(self) -> np.ndarray:
        rng = np.random.default_rng(0)
        return np.concatenate([rng.normal(0.3, 0.1, 800), rng.normal(2.0, 0.3, 200)])

    def test_one_outlier_hides_no_noise(self) -> None:
        # scaled by least and largest, one loss of 60 would squeeze all others into one mode
        for losses in (self.losses(), np.append(self.losses(), 60.0)):
            given_ = Candidates(np.arange(len(losses)), {"loss": losses}, np.zeros(len(losses), int))
            dropped = select_rows(SmallLoss(), given_).copies == 0
            assert dropped[800:1000].mean() > 0.99 and dropped[:800].sum() <= 2

    def test_one_mode_is_all_kept(self) -> None:
        for losses in (np.ones(50), np.random.default_rng(1).normal(size=3000), np.array([1.0])):
            chances, two = noise_chances(losses)
            assert not two and (chances == 0).all()

    def test_by_hand(self) -> None:
        # modes at 0 and 1 (scaled) with the least variance: the middle is as likely of either
        losses = np.array([0.0] * 10 + [4.0] * 10)
        chances, two = noise_chances(losses)
        assert two and (chances[:10] == 0).all() and (chances[10:] > 0.999).all()

    def test_each_group_may_have_modes_of_its_own(self) -> None:
        # the second group's good rows have the losses of the first group's bad ones
        losses = np.concatenate([self.losses(), self.losses() + 1.7])
        group = np.repeat([0, 1], 1000)
        given_ = Candidates(np.arange(2000), {"loss": losses}, group)
        kept = select_rows(SmallLoss(by_group=True), given_).copies
        assert kept[1000:1800].mean() > 0.99 and kept[1800:].mean() < 0.01
        assert select_rows(SmallLoss(), given_).copies[1000:1800].mean() < 0.9


class TestTransport:
    def test_by_hand(self) -> None:
        # two points each: straight over costs (0 + 1) / 2, crosswise (3 + 4) / 2
        costs = np.array([[0.0, 3.0], [4.0, 1.0]])
        assert transport(costs, 0.01).cost == pytest.approx(0.5, abs=1e-6)

    def test_on_a_line_the_cost_falls_to_that_of_the_sorted_pairs(self) -> None:
        rng = np.random.default_rng(0)
        one, two = np.sort(rng.normal(size=50)), np.sort(rng.normal(0.7, 1.2, size=50))
        exact, costs = np.abs(one - two).mean(), np.abs(one[:, None] - two)
        found = [transport(costs, smoothing).cost for smoothing in (0.3, 0.1, 0.02, 0.005)]
        assert found == sorted(found, reverse=True) and found[-1] == pytest.approx(exact, abs=1e-3)

    def test_it_agrees_with_an_exact_solver(self) -> None:
        optimize = pytest.importorskip("scipy.optimize")
        costs = np.random.default_rng(3).random((30, 30))
        pairs = optimize.linear_sum_assignment(costs)
        assert transport(costs, 1e-3).cost == pytest.approx(costs[pairs].mean(), abs=2e-3)

    def test_from_a_set_to_itself_nothing_moves(self) -> None:  # G7
        points = np.random.default_rng(4).normal(size=(40, 3))
        assert transport(np.linalg.norm(points[:, None] - points, axis=2), 1e-4).cost < 1e-4


class TestTarot:
    def test_whitened_features_have_the_unit_matrix_as_covariance(self) -> None:  # G7
        rng = np.random.default_rng(0)
        values = rng.normal(size=(5000, 4)) @ rng.normal(size=(4, 4))
        assert np.cov(whiten(values, 1e-12).T) == pytest.approx(np.eye(4), abs=1e-6)

    def test_distances_do_not_change_under_an_invertible_map(self) -> None:
        rng = np.random.default_rng(1)
        values = rng.normal(size=(200, 4))
        one, two = whiten(values, 1e-12), whiten(values @ rng.normal(size=(4, 4)), 1e-12)
        assert one @ one.T == pytest.approx(two @ two.T, abs=1e-6)

    def test_fewer_rows_than_features_are_no_trouble(self) -> None:
        rng = np.random.default_rng(2)
        rows, target = whitened(rng.normal(size=(20, 64)), rng.normal(size=(5, 64)), 1e-3)
        assert np.isfinite(rows).all() and np.linalg.norm(target, axis=1) == pytest.approx(np.ones(5))

    def test_nearest_rows_are_those_of_the_whole_matrix(self) -> None:
        rng = np.random.default_rng(3)
        rows, target = unit_rows(rng.normal(size=(9000, 3))), unit_rows(rng.normal(size=(4, 3)))
        places, cosines = nearest_rows(rows, target, 5)
        whole = target @ rows.T
        assert np.array_equal(places, np.argsort(-whole, axis=1, kind="stable")[:, :5])
        assert cosines == pytest.approx(np.take_along_axis(whole, places, 1))

    def test_layers_by_hand(self) -> None:
        # rows 0 and 1 are nearest of the two targets, then 2 and 3; row 4 is far from both
        rows = unit_rows(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.3], [0.3, 1.0], [-1.0, -1.0]]))
        target = np.array([[1.0, 0.0], [0.0, 1.0]])
        ranked, _ = nearest_rows(rows, target, 2)
        assert ranked.tolist() == [[0, 2], [1, 3]]
        layer = np.array([1, 1, 2, 2, 3])
        policy = Tarot(depth=2)
        assert policy.first_rows(rows, target, layer, 2).tolist() == [True, True, False, False, False]
        found = policy.first_rows(rows, target, layer, 3)
        assert found[:2].all() and found[2] + found[3] == 1 and not found[4]
        # three targets of four are nearest to the first row: of 6 copies one each, then 3 and 1 by use
        assert copies_by_use(np.eye(2), np.array([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1]]), 6).tolist() == [4, 2]

    def test_of_a_target_with_two_modes_both_are_chosen(self) -> None:
        rng = np.random.default_rng(4)
        modes = np.array([[6.0, 0.0, 0.0], [0.0, 6.0, 0.0]])
        rows = np.concatenate([modes[0] + rng.normal(size=(40, 3)), modes[1] + rng.normal(size=(40, 3))])
        noise = rng.normal(0, 3, (120, 3)) - np.array([3.0, 3.0, 0.0])
        sketch = np.concatenate([rows, noise])
        target = np.concatenate([modes[0] + rng.normal(size=(14, 3)), modes[1] + rng.normal(size=(6, 3))])
        given_ = Candidates(np.arange(200), {"sketch": sketch}, np.zeros(200, int), {"sketch": target}, 20)
        chosen = np.flatnonzero(select_rows(Tarot(), given_).copies)
        assert (chosen < 40).sum() >= 4 and ((chosen >= 40) & (chosen < 80)).sum() >= 4
        white, aimed = whitened(sketch, target, 1e-3)
        greedy = np.argsort(-(white @ aimed.T).mean(axis=1))[:20]
        assert ((greedy >= 40) & (greedy < 80)).sum() < ((chosen >= 40) & (chosen < 80)).sum()

    def test_the_rest_of_a_layer_by_potentials_is_nearer_the_target_than_the_other_end(self) -> None:
        rng = np.random.default_rng(5)
        better = 0
        for _ in range(20):
            rows, target = unit_rows(rng.normal(size=(40, 4))), unit_rows(rng.normal(1, 0.6, (15, 4)))
            costs = unit_distances(rows, target)
            first = transport(costs, 0.01).first
            least, most = np.argsort(first)[:10], np.argsort(-first)[:10]
            better += transport(costs[least], 0.01).cost < transport(costs[most], 0.01).cost
        assert better == 20

    def test_the_share_that_is_found_is_near_the_planted_one(self) -> None:
        rng = np.random.default_rng(6)
        centre = np.array([4.0, 4.0, 0.0, 0.0])
        planted = centre + rng.normal(size=(60, 4))
        others = -centre / 2 + rng.normal(0, 1.0, (140, 4))
        target = centre + rng.normal(size=(40, 4))
        sketch = np.concatenate([planted, others])
        given_ = Candidates(np.arange(200), {"sketch": sketch}, np.zeros(200, int), {"sketch": target})
        found = select_rows(Tarot(), given_)
        assert 0.1 < found.facts["ratio"] < 0.45
        assert found.copies[60:].sum() <= 0.1 * found.rows


def test_influence_by_hand() -> None:
    # the second target's numbers are ten times as large, and count no more: roots of mean squares are 2 and 20
    values = np.array([[2.0, -20.0], [-2.0, 20.0], [2.0, 20.0], [-2.0, -20.0]])
    given = Candidates(np.arange(4), {"influence": values}, np.zeros(4, int))
    assert Influence().joined(values).tolist() == [0.0, 0.0, 1.0, -1.0]
    assert select_rows(Influence(), given).copies.tolist() == [0, 0, 1, 0]
    assert select_rows(Influence(over="max"), given).copies.tolist() == [1, 1, 1, 0]
    assert select_rows(Influence(over="min"), given).margin.tolist() == [-1.0, -1.0, 1.0, -1.0]
    # with a budget the least id of equal ones comes first
    assert select_rows(Influence(), given._replace(budget=2)).copies.tolist() == [1, 0, 1, 0]
