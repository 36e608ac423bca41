import dataclasses
import json
import math
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.policies import population
from shoal.policies.exploit import (
    Copy,
    Exploit,
    NoExploit,
    Threshold,
    Tournament,
    Truncation,
    TTest,
    WinnerTakesAll,
)
from shoal.policies.explore import Interval, Past, Perturb, explore
from shoal.policies.fire import Fire, outpaces, smoothed, wins
from shoal.policies.frequencies import MultipleFrequency
from shoal.policies.halving import Cull
from shoal.policies.population import Report, decide
from shoal.policies.rules import EXPLOITS, LEFT_ALONE, Rules
from shoal.policies.space import Categorical, Constant, Float
from shoal.policies.standings import Standings, rank
from shoal.policies.standings import standings as stand
from shoal.policies.statistics import welch

QUARTER, HALF = Rules(Truncation(0.25)), Rules(Truncation(0.5))
SPACE = {"rate": Float(1e-4, 1e-1, log=True), "kind": Categorical(("a", "b"))}


def reports(scores: list[float], step: int = 10) -> list[Report]:
    return [Report(member, step, score) for member, score in enumerate(scores)]


def test_truncation_by_hand() -> None:
    # 8 members, fraction 0.25: the two worst (3 and 5) each copy one of the two best (6 and 1)
    state = population.start(SPACE, 8, seed=1)
    scores = [0.5, 0.9, 0.4, 0.1, 0.6, 0.2, 1.0, 0.3]
    after, orders = decide(QUARTER, SPACE, state, reports(scores), seed=1)
    assert sorted(order.member for order in orders) == [3, 5]
    assert {order.donor for order in orders} <= {6, 1}
    for order in orders:
        assert after[order.member].hyperparameters == order.hyperparameters
        assert after[order.member].score is None
    assert [known.score for known in after if known.score is not None] == [0.5, 0.9, 0.4, 0.6, 1.0, 0.3]


@pytest.mark.parametrize(
    ("fraction", "sizes"),
    [
        (0.2, [0, 0, 0, 0, 1, 1, 1, 1, 1]),
        (0.25, [0, 0, 0, 1, 1, 1, 1, 2, 2]),
        (0.5, [0, 1, 1, 2, 2, 3, 3, 4, 4]),
    ],
)
def test_the_tail_is_the_floor_of_the_fraction(fraction: float, sizes: list[int]) -> None:
    assert [Truncation(fraction).tail(members) for members in range(1, 10)] == sizes


@pytest.mark.parametrize("name", EXPLOITS)
@given(
    scores=st.lists(st.one_of(st.integers(-9, 9).map(float), st.just(math.nan)), min_size=1, max_size=24),
    seed=st.integers(0, 2**31),
)
def test_what_must_hold_of_every_rule_for_any_scores(name: str, scores: list[float], seed: int) -> None:
    rules, traits = Rules(EXPLOITS[name]()), EXPLOITS[name].traits
    state = after = population.start(SPACE, len(scores), seed)
    for past in (0.1, 0.0):  # two rounds, so that rules that look back have something to see
        after, orders = decide(rules, SPACE, state, reports([score - past for score in scores]), seed)
        targets = {order.member for order in orders}
        finite = [score for score in scores if math.isfinite(score)]
        assert len(orders) == len(targets)
        # only a laggard without a leader keeps its weights and varies its own hyperparameters
        assert traits.own_weights or all(order.donor != order.member for order in orders)
        assert all(math.isfinite(scores[order.donor]) for order in orders)
        if traits.by_score:
            assert not any(scores[order.donor] < scores[order.member] for order in orders)
            assert not finite or scores.index(max(finite)) not in targets
        for order in orders:
            assert all(SPACE[key].contains(value) for key, value in order.hyperparameters.items())
        for member in set(range(len(scores))) - targets:
            assert after[member].hyperparameters == state[member].hyperparameters
        state = after


@given(
    scores=st.lists(st.one_of(st.integers(-9, 9).map(float), st.just(math.nan)), min_size=1, max_size=24),
    seed=st.integers(0, 2**31),
)
def test_fire_never_loses_the_weights_of_its_best_child(scores: list[float], seed: int) -> None:
    # parents are ranked by their rates, and evaluators begin anew
    rules, finite = Rules(EXPLOITS["fire"]()), [score for score in scores if math.isfinite(score)]
    state = population.start(SPACE, len(scores), seed)
    children = range(len(scores) - 2 * (len(scores) // 3))
    best = scores.index(max(finite)) if finite else -1
    for past in (0.1, 0.0):
        state, orders = decide(rules, SPACE, state, reports([score - past for score in scores]), seed)
        targets, donors = {order.member for order in orders}, {order.donor for order in orders}
        assert best not in targets or best in donors or best not in children


@pytest.mark.parametrize("name", EXPLOITS)
def test_every_rule_is_deterministic_and_blind_to_the_order_of_arrival(name: str) -> None:
    rules, state = Rules(EXPLOITS[name]()), population.start(SPACE, 8, 4)
    rng = np.random.default_rng(0)
    for step in (10, 20, 30):
        said = reports(list(np.arange(8) + rng.normal(size=8)), step)
        first = decide(rules, SPACE, state, said, 4)
        for shuffle in range(5):
            mixed = [said[i] for i in np.random.default_rng(shuffle).permutation(8)]
            assert decide(rules, SPACE, state, mixed, 4) == first
        state = first[0]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=24), st.sampled_from([0.2, 0.25, 0.5]))
def test_truncation_copies_no_more_than_its_tail_and_never_from_a_copier(
    scores: list[float], fraction: float
) -> None:
    state = population.start(SPACE, len(scores), 0)
    _, orders = decide(Rules(Truncation(fraction)), SPACE, state, reports(scores), 0)
    assert len(orders) == (math.floor(len(scores) * fraction) if len(scores) > 1 else 0)
    assert not {order.member for order in orders} & {order.donor for order in orders}


def standings(histories: list[list[float]]) -> Standings:
    scores = {member: history[-1] for member, history in enumerate(histories)}
    told = {member: tuple(history) for member, history in enumerate(histories)}
    return stand(scores, told, len(histories), 1)


def donors(rule: Exploit, histories: list[list[float]], seed: int = 0) -> list[int | None]:
    told = standings(histories)
    copies = [rule.copy(member, told, np.random.default_rng(seed)) for member in range(len(histories))]
    return [copy and copy.donor for copy in copies]


def test_t_test_by_hand() -> None:
    # (1, 2, 3) against (4, 5, 6): t = 3 / sqrt(1/3 + 1/3) = 3.674, df = 4, one-sided p = 0.0107
    low, high = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    assert donors(TTest(alpha=0.05), [low, high]) == [1, None]
    assert donors(TTest(alpha=0.01), [low, high]) == [None, None]
    # the last score alone would say that member 0 is better; its mean is not
    assert donors(TTest(alpha=0.05), [[1.0, 1.1, 1.0, 9.0], [5.0, 5.1, 5.0, 5.1]]) == [None, None]
    assert donors(TTest(), [[1.0], [2.0]]) == [None, None]
    assert donors(TTest(), [[1.0, 1.0], [2.0, 2.0]]) == [1, None]
    assert donors(TTest(), [[1.0, 1.0], [1.0, 1.0]]) == [None, None]
    assert donors(TTest(window=2, alpha=0.2), [[9.0, 9.0, 1.0, 1.1], [2.0, 2.0, 2.0, 2.1]]) == [1, None]


def test_welch_equals_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(300):
        first = rng.normal(rng.normal(), rng.uniform(0.1, 3), rng.integers(2, 30))
        second = rng.normal(rng.normal(), rng.uniform(0.1, 3), rng.integers(2, 30))
        expected = stats.ttest_ind(first, second, equal_var=False, alternative="greater").pvalue
        assert welch(first, second) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("better", [2, 3, 5, 7, 10])
@pytest.mark.parametrize("worse", [2, 3, 6, 10])
def test_equal_constants_of_any_length_are_equal_to_the_t_test(better: int, worse: int) -> None:
    # the mean of [0.3] * 10 is rounded, and so would be its distance from 0.3
    levels = [*np.random.default_rng(0).uniform(-9, 9, 200), *np.arange(1, 100) / 100]
    assert {welch([level] * better, [level] * worse) for level in levels} == {1.0}
    assert {welch([level + 1e-6] * better, [level] * worse) for level in levels} == {0.0}
    # 0.1 + 0.2 is 0.3 but for rounding
    assert welch([0.1 + 0.2, 0.3][:better] * (better // 2), [0.3] * worse) == 1.0


@pytest.mark.parametrize("deviations", [0.0, 0.5, 1.0])
def test_nobody_lags_where_all_score_alike(deviations: float) -> None:
    for members in range(2, 24):
        for level in (0.1, 0.3, 0.7, -2.3, 1e6 / 3):
            assert donors(Threshold(deviations), [[level]] * members) == [None] * members
    assert donors(Threshold(deviations), [[0.3], [0.1 + 0.2], [0.3]]) == [None] * 3


def test_tournament_by_hand() -> None:
    # of two, the worse always meets the better; equals never copy
    assert donors(Tournament(), [[1.0], [2.0]]) == [1, None]
    assert donors(Tournament(), [[2.0], [2.0]]) == [None, None]
    assert donors(Tournament(), [[math.nan], [2.0]]) == [1, None]
    # with as many rivals as there are others, all copy the best
    assert donors(Tournament(rivals=3), [[1.0], [2.0], [4.0], [3.0]]) == [2, 2, None, 2]
    drawn = [donors(Tournament(), [[0.0], [1.0], [2.0]], seed)[0] for seed in range(400)]
    assert 150 < drawn.count(1) < 250 and drawn.count(1) + drawn.count(2) == 400


def test_winner_takes_all_by_hand() -> None:
    # ranking 3, 1, 4 | 0, 2 of five: the k-th of the lower half copies the k-th best
    assert donors(WinnerTakesAll(), [[0.2], [0.8], [0.1], [0.9], [0.5]]) == [3, None, 1, None, None]


def test_threshold_by_hand() -> None:
    # 0, 0, 0, 0, 10: mean 2, deviation 4: the leader is above 6, nobody is below -2
    assert donors(Threshold(), [[0.0]] * 4 + [[10.0]]) == [None] * 5
    # 0, 5, 5, 5, 10: mean 5, deviation 3.16: 0 lags and 10 leads
    assert donors(Threshold(), [[0.0], [5.0], [5.0], [5.0], [10.0]]) == [4, None, None, None, None]
    # 0, 10, 10, 10, 10: mean 8, deviation 4: 0 lags and nobody leads, so it varies its own
    assert donors(Threshold(), [[0.0]] + [[10.0]] * 4) == [0, None, None, None, None]
    assert donors(Threshold(), [[math.nan], [0.0]] + [[10.0]] * 4) == [None, 1, None, None, None, None]
    assert donors(Threshold(1.0, 6.0), [[0.0], [5.0], [5.0], [5.0], [10.0]]) == [None] * 5
    assert donors(Threshold(), [[1.0]] * 4) == [None] * 4


def test_multiple_frequency_by_hand() -> None:
    # two parts of four, every and every second decision: ranked 5 | 0 1 | 4 6 | 2 | 7 3 over both
    rule = MultipleFrequency((1, 2))
    scores = [0.9, 0.8, 0.4, 0.1, 0.7, 1.0, 0.6, 0.2]
    histories = {member: (score,) for member, score in enumerate(scores)}

    def copies(decision: int) -> list[Copy | None]:
        told = stand(dict(enumerate(scores)), histories, 8, decision)
        return [rule.copy(member, told, np.random.default_rng(0)) for member in range(8)]

    # decision 1: the fast part alone, ranked 0 1 2 3: 3 clones 0, and 2 takes weights and hyperparameters
    # of 5, the best of the slower part
    fast = [None, None, Copy(5, 5, explore=False), Copy(0, 0)]
    assert copies(1) == [*fast, None, None, None, None]
    # decision 2: the slow part as well, ranked 5 4 6 7: 7 clones 5, and 6 takes the weights of 0, which is
    # of a faster part, under the hyperparameters of its own part's best
    assert copies(2) == [*fast, None, None, Copy(0, 5, explore=False), Copy(5, 5)]


def test_multiple_frequency_gives_no_migrant_to_a_better_member_and_none_twice() -> None:
    # eight in a part: the third quarter of the first is 4 and 5; elsewhere only 8 is better than them
    rule = MultipleFrequency((1, 1))
    scores = [0.99, 0.98, 0.97, 0.96, 0.5, 0.4, 0.3, 0.2, 0.6, *[0.1 - 0.01 * i for i in range(7)]]
    told = stand(dict(enumerate(scores)), {member: (score,) for member, score in enumerate(scores)}, 16, 1)
    copies = [rule.copy(member, told, np.random.default_rng(0)) for member in range(8)]
    # of a part with the same frequency come weights alone
    assert copies[:6] == [None, None, None, None, Copy(8, 4, explore=False), None]
    assert copies[6:] == [Copy(1, 1), Copy(0, 0)]


def test_a_part_of_four_evolves_without_one_that_is_gone() -> None:
    # 1 is gone for good: of 0, 2 and 3 the worst clones the best, and the middle one takes 4's better weights
    rule, scores = MultipleFrequency((1, 1)), {0: 0.9, 2: 0.5, 3: 0.1, 4: 0.8, 5: 0.3, 6: 0.2, 7: 0.0}
    told = stand(scores, {member: (score,) for member, score in scores.items()}, 8, 1)
    copies = [rule.copy(member, told, np.random.default_rng(0)) for member in (0, 2, 3)]
    assert copies == [None, Copy(4, 2, explore=False), Copy(0, 0)]


def test_multiple_frequency_with_one_part_is_truncation_without_the_draw() -> None:
    rule = MultipleFrequency((1,))
    told = standings([[float(score)] for score in range(8)])
    copies = [rule.copy(member, told, np.random.default_rng(0)) for member in range(8)]
    assert copies == [Copy(7, 7), Copy(6, 6), *[None] * 6]


def fires(rule: Fire, histories: list[tuple[float, ...]], decision: int) -> list[Copy | None]:
    told = stand(
        {member: each[-1] for member, each in enumerate(histories)},
        dict(enumerate(histories)),
        len(histories),
        decision,
    )
    return [rule.copy(member, told, np.random.default_rng(0)) for member in range(len(histories))]


def test_fire_by_hand() -> None:
    # 0 to 3 are children, 4 to 7 parents, 8 to 11 their evaluators; curves as they are: smoothing 0
    rule = Fire(patience=2, smoothing=0.0)
    children = [(0.5,), (0.9,), (0.6,), (0.7,)]
    parents = [(0.3,), (0.4,), (0.35,), (0.2,)]
    # from 0 to 0.2 evaluator 8 takes 1 interval, 9 takes 2, 10 takes 0.5; 11 has not come so low or so high
    evaluators = [(0.0, 0.2, 0.2), (0.0, 0.1, 0.2), (0.0, 0.4, 0.4), (1.1, 1.2, 1.3)]
    histories = [*children, *parents, *evaluators]
    # decision 2: only the children decide: the worst, 0, clones the best of children and evaluators, 11
    assert fires(rule, histories, 2) == [Copy(11, 11), *[None] * 11]
    # decision 3: 10 beats 8 and 9, 8 beats 9, with 11 all are undecided: 2.5 wins of 10, 1.5 of 8 and 11 and
    # 0.5 of 9, so parents rank 6 4 7 5, and 5, although the best by score, clones 6; evaluators take over from
    # their parents under the hyperparameters of the best child, 1, and that of 5 takes what 5 has from now on
    parents_do = [None, Copy(6, 6), None, None]
    evaluators_do = [Copy(donor, 1, explore=False) for donor in (4, 6, 6, 7)]
    assert fires(rule, histories, 3) == [Copy(11, 11), None, None, None, *parents_do, *evaluators_do]


def test_fire_judges_no_parent_before_its_evaluator_has_run() -> None:
    # 4 to 7 are parents of falling rates: at once the lowest rate scores best, and nothing is measured yet
    scores = [-1.0] * 4 + [-1.4, -1.15, -0.95, -0.9] + [-1.0] * 4
    begin = [Copy(parent, 7, explore=False) for parent in (4, 5, 6, 7)]
    for patience in (1, 2, 8):
        # the worst child clones the best of the greedy, 0, and evaluators take their parents' weights
        copies = fires(Fire(patience), [(score,) for score in scores], 1)
        assert copies[4:8] == [None] * 4
        assert [copy and copy.donor for copy in copies[8:]] == [copy.donor for copy in begin]


def fire_rounds(rules: Rules, scores: list[list[float]]) -> list[dict[int, int]]:
    """Return who copied whom in each round."""
    state, told = population.start(SPACE, len(scores[0]), 0), []
    for round_, each in enumerate(scores, 1):
        state, orders = decide(rules, SPACE, state, reports(each, 10 * round_), 0)
        told.append({order.member: order.donor for order in orders})
    return told


def test_fire_counts_only_what_evaluators_saw_of_weights_that_the_parents_have() -> None:
    # 4 to 7 are parents; the evaluator of 4, which is 8, climbs to 4.5 slowest
    children, parents = [9.0] * 4, [0.1, 0.2, 0.3, 0.4]
    climbs = [[2.0, 2.5, 4.5], [2.0, 4.0, 5.0], [2.0, 4.0, 5.0], [2.0, 4.0, 5.0]]
    seen = [[*children, *parents, *(climb[round_] for climb in climbs)] for round_ in range(3)]
    rules = Rules(Fire(2, smoothing=0.0), Perturb(0.0))
    assert 4 in fire_rounds(rules, seen)[2]
    # within a burn-in no evaluator has taken a parent's weights: the first to be judged are those of decision 5
    quiet = Rules(Fire(2, smoothing=0.0), Perturb(0.0), burn_in=30)
    told = fire_rounds(quiet, [*seen, seen[1], seen[2]])
    assert not any(told[:2]) and not {4, 5, 6, 7} & told[2].keys() and 4 in told[4]
    # an evaluator that fails in between tells nothing, and its parent is not taken for the slowest
    failed = [seen[0], [*seen[1][:8], math.nan, *seen[1][9:]], seen[2]]
    assert 4 not in fire_rounds(rules, failed)[2]
    # nor does what it saw of weights that its parent has lost
    lost = [seen[0], [*seen[1][:4], math.nan, *seen[1][5:]], seen[2]]
    told = fire_rounds(rules, lost)
    assert 4 in told[1] and 4 not in told[2]


def test_rates_are_compared_where_the_scores_are_the_same() -> None:
    # both pass from 2 to 4: in 1 interval, from t = 1 to 2, and in 2, from 0 to 2
    steep, flat = (0.0, 2.0, 4.0), (2.0, 3.0, 4.0)
    assert outpaces(steep, flat) is True and outpaces(flat, steep) is False
    assert wins((steep, flat, ())) == (1.0, 0.0, 0.0)
    # a dip does not count: 0, 2, 1, 4 climbs as 0, 2, 2, 4, in 2 intervals from 2 to 4, as the other does
    assert wins(((0.0, 2.0, 1.0, 4.0), flat)) == (0.5, 0.5)
    # no common score, or no progress: undecided
    assert outpaces((0.0, 1.0), (2.0, 3.0)) is None
    assert outpaces((1.0, 1.0), (0.0, 3.0)) is None


def test_a_smoothed_curve_by_hand() -> None:
    # 1; (0.5 * 0.5 * 1 + 0.5 * 4) / 0.75 = 3; (0.5 * 2.25 + 0.5 * 0) / 0.875
    assert smoothed([1.0, 4.0, 0.0], 0.5) == pytest.approx([1.0, 3.0, 1.125 / 0.875])
    assert smoothed([1.0, 4.0, 0.0], 0.0) == (1.0, 4.0, 0.0)


def test_nobody_copies_before_enough_members_have_scored_or_across_ages() -> None:
    state = population.start(SPACE, 8, 0)
    rules = Rules(Tournament(), least=6)
    state, orders = decide(rules, SPACE, state, reports([1.0, 2.0, 3.0, 4.0, 5.0]), 0)
    assert orders == []
    _, orders = decide(rules, SPACE, state, [Report(5, 10, 0.0)], 0)
    assert [order.member for order in orders] == [5]
    young = Rules(Tournament(), age_window=5)
    _, orders = decide(young, SPACE, state, [Report(5, 40, 0.0), Report(6, 42, 1.0)], 0)
    # the first five are 30 steps younger: 5 can only meet 6
    assert [(order.member, order.donor) for order in orders] == [(5, 6)]


def test_nobody_copies_before_the_burn_in_is_over() -> None:
    state, rules = population.start(SPACE, 4, 0), Rules(Truncation(0.25), burn_in=20)
    said = [0.0, 1.0, 2.0, 3.0]
    assert decide(rules, SPACE, state, reports(said, 10), 0)[1] == []
    assert [order.member for order in decide(rules, SPACE, state, reports(said, 20), 0)[1]] == [0]
    # a failed member need not wait
    orders = decide(rules, SPACE, state, reports([math.nan, *said[1:]], 10), 0)[1]
    assert [(order.member, order.donor) for order in orders] == [(0, 3)]


def test_rungs_by_hand() -> None:
    # at 20, 80, 320 steps
    cull = Cull(20, 4)
    assert [cull.rung(step - 10, step) for step in (10, 20, 30, 80, 90, 320)] == [None, 0, None, 1, None, 2]
    assert cull.rung(0, 100) == 1 and cull.rung(15, 25) == 0
    # of 1, 2, 3, 4 the best quarter begins at 3.25, the best half at 2.5
    assert [cull.hopeless(own, [1.0, 2.0, 3.0, 4.0, math.nan]) for own in (3.0, 4.0)] == [True, False]
    assert [Cull(20, 2).hopeless(own, [1.0, 2.0, 3.0, 4.0]) for own in (2.0, 3.0)] == [True, False]


@pytest.mark.parametrize("reduction", [1.5, 2, 3, 4, 7])
def test_the_share_of_a_rung_that_goes_on_is_rounded_up(reduction: float) -> None:
    assert [gone_on(Cull(20, 4), members) for members in (1, 4, 5, 8, 9, 13)] == [1, 1, 2, 2, 3, 4]
    # of ten the best four: 9 * (1 - 1 / 3) is 6, but for rounding
    assert [gone_on(Cull(20, 3), members) for members in (9, 10, 11)] == [3, 4, 4]
    for members in range(1, 130):
        assert gone_on(Cull(20, reduction), members) == (members - 1) // Fraction(reduction) + 1


def gone_on(cull: Cull, members: int) -> int:
    scores = [float(score) for score in range(members)]
    return sum(not cull.hopeless(score, scores) for score in scores)


def test_nobody_is_culled_before_enough_have_come_to_the_rung() -> None:
    rules = Rules(NoExploit(), cull=Cull(20, 2), least=3)
    # all four have a score, but only two have come to the rung of 20 steps
    state, _ = decide(rules, SPACE, population.start(SPACE, 4, 0), reports([1.0, 2.0, 3.0, 4.0], 10), 0)
    state, orders = decide(rules, SPACE, state, reports([1.0, 2.0], 20), 0)
    assert orders == []
    # of 0.5, 1, 2 and 5 the better half go on
    _, orders = decide(rules, SPACE, state, [Report(2, 20, 5.0), Report(3, 20, 0.5)], 0)
    assert [(order.member, order.donor) for order in orders] == [(3, 2)]


def test_who_falls_behind_on_a_rung_becomes_a_clone_once() -> None:
    rules = Rules(NoExploit(), cull=Cull(20, 2))
    state, said = population.start(SPACE, 4, 0), [1.0, 2.0, 3.0, 4.0]
    state, orders = decide(rules, SPACE, state, reports(said, 10), 0)
    assert orders == []  # the first rung is at 20 steps
    state, orders = decide(rules, SPACE, state, reports(said, 20), 0)
    assert [(order.member, order.donor) for order in orders] == [(0, 3), (1, 3)]
    state = population.from_plain(json.loads(json.dumps(population.to_plain(state))))
    state, orders = decide(rules, SPACE, state, reports(said, 30), 0)
    assert orders == []  # no rung between 20 and 40
    state, orders = decide(rules, SPACE, state, reports(said[::-1], 40), 0)
    assert [(order.member, order.donor) for order in orders] == [(2, 0), (3, 0)]


def test_rungs_compare_members_of_one_age_whenever_they_come_to_it() -> None:
    rules = Rules(NoExploit(), cull=Cull(20, 2))
    state = population.start(SPACE, 3, 0)
    state, orders = decide(rules, SPACE, state, [Report(0, 20, 5.0), Report(1, 20, 6.0)], 0)
    assert [(order.member, order.donor) for order in orders] == [(0, 1)]
    state, orders = decide(rules, SPACE, state, [Report(1, 60, 9.0)], 0)
    assert orders == []  # alone on the rung of 40
    # 2 comes to the first rung late: it is held against 5 and 6, and copies whoever is good now
    _, orders = decide(rules, SPACE, state, [Report(2, 20, 5.5)], 0)
    assert orders == []
    _, orders = decide(rules, SPACE, state, [Report(2, 20, 4.0)], 0)
    assert [(order.member, order.donor) for order in orders] == [(2, 1)]


def test_a_copy_takes_the_weights_that_a_copying_donor_reported_with() -> None:
    # a tournament of three in a row: 0 may copy 1 while 1 copies 2; the snapshot is the same for all
    for seed in range(200):
        state = population.start(SPACE, 3, seed)
        after, orders = decide(Rules(Tournament()), SPACE, state, reports([0.0, 1.0, 2.0]), seed)
        told = {order.member: order for order in orders}
        if told[0].donor == 1 and 1 in told:
            assert told[1].donor == 2 and after[0].score is None and after[1].history == ()
            return
    raise AssertionError("no such decision in 200 seeds")


def test_nan_ranks_last_and_never_donates() -> None:
    assert rank({0: math.nan, 1: -3.0, 2: 5.0, 3: math.nan}) == [2, 1, 0, 3]
    state = population.start(SPACE, 4, 0)
    _, orders = decide(HALF, SPACE, state, reports([math.nan, math.nan, math.nan, 1.0]), 0)
    # the best half holds member 3 and a NaN one: only 3 can donate
    assert {order.donor for order in orders} == {3}
    _, nobody = decide(HALF, SPACE, state, reports([math.nan] * 4), 0)
    assert nobody == []


def test_a_failed_member_is_replaced_so_many_times_and_then_left() -> None:
    rules = Rules(MultipleFrequency((9,)), replacements=2)
    state = population.start(SPACE, 4, 0)
    for decision in range(1, 5):
        state, orders = decide(rules, SPACE, state, reports([math.nan, 1.0, 3.0, 2.0], 10 * decision), 0)
        # the rule itself copies nothing before the ninth decision; the best quarter is member 2
        assert [(order.member, order.donor) for order in orders] == ([(0, 2)] if decision <= 2 else [])
    assert state[0].failures == 4
    assert decide(LEFT_ALONE, SPACE, state, reports([1.0, math.nan, 3.0, 2.0], 50), 0)[1] == []


def test_members_that_failed_for_good_do_not_fill_the_places_of_the_worst() -> None:
    rules, state = Rules(Truncation(0.25), replacements=0), population.start(SPACE, 10, 0)
    said = [math.nan, math.nan, *(float(score) for score in range(1, 9))]
    # eight train on: of them the two worst, 2 and 3, copy the two best
    _, orders = decide(rules, SPACE, state, reports(said), 0)
    assert [order.member for order in orders] == [2, 3] and {order.donor for order in orders} <= {8, 9}
    # they have been counted among those that must have scored
    _, orders = decide(Rules(Truncation(0.25), replacements=0, least=10), SPACE, state, reports(said), 0)
    assert len(orders) == 2


def test_a_clone_goes_back_to_the_best_weights_ever_and_varies_their_own_hyperparameters() -> None:
    rules, state = Rules(Truncation(0.25), Perturb(0.0), backtrack=True), population.start(SPACE, 4, 0)
    first = state[3].hyperparameters
    state, orders = decide(rules, SPACE, state, reports([1.0, 2.0, 3.0, 9.0], 10), 0)
    assert [(order.member, order.donor, order.decision) for order in orders] == [(0, 3, None)]
    assert population.archived(state) == (3, population.Best(9.0, 1, 10, first))
    state = population.from_plain(json.loads(json.dumps(population.to_plain(state))))
    # all are worse now: the best of now is 2, but its 5 is less than the 9 that 3 had at its first decision,
    # and 3 itself, now the worst, goes back to what it was; both vary the rate that belonged to the 9
    state = tuple(known._replace(hyperparameters={"rate": 0.09, "kind": "a"}) for known in state)
    _, orders = decide(rules, SPACE, state, reports([4.0, 2.0, 5.0, 1.0], 20), 0)
    assert [(order.member, order.donor, order.decision) for order in orders] == [(3, 3, 1)]
    assert orders[0].hyperparameters["rate"] / first["rate"] == pytest.approx(0.8) or orders[0].hyperparameters[
        "rate"
    ] / first["rate"] == pytest.approx(1.25)
    # a donor of now that is better than all before is copied as it is
    after, orders = decide(rules, SPACE, state, reports([4.0, 2.0, 10.0, 1.0], 20), 0)
    assert [(order.member, order.donor, order.decision) for order in orders] == [(3, 2, None)]
    assert population.archived(after) == (2, population.Best(10.0, 2, 20, {"rate": 0.09, "kind": "a"}))


class Remembers(Perturb):
    """Perturbs, and keeps what it was shown."""

    memory = 2
    seen: ClassVar[list[Past]] = []

    def propose(self, space, donor, past: Past, rng):
        self.seen.append(past)
        return super().propose(space, donor, past, rng)


def test_what_a_rule_that_learns_is_shown() -> None:
    rules, state = Rules(Truncation(0.5), Remembers()), population.start(SPACE, 2, 0)
    first = [known.hyperparameters for known in state]
    state, orders = decide(rules, SPACE, state, reports([1.0, 2.0], 10), 0)
    # no interval has a score before it yet; member 1 goes on as it was
    assert Remembers.seen.pop() == Past((), (first[1],), 10, 2.0)
    assert [order.member for order in orders] == [0]
    state = population.from_plain(json.loads(json.dumps(population.to_plain(state))))
    state, orders = decide(rules, SPACE, state, reports([4.0, 3.0], 20), 0)
    # the clone began with its donor's 2.0
    cloned = Interval(10, 2.0, 0.2, state[0].hyperparameters, True)
    stayed = Interval(10, 2.0, 0.1, first[1], False)
    assert Remembers.seen.pop() == Past((cloned, stayed), (state[0].hyperparameters,), 20, 4.0)
    assert [order.member for order in orders] == [1]
    for step in (30, 40):
        state, _ = decide(rules, SPACE, state, reports([5.0, 4.0], step), 0)
    assert [len(known.past) for known in state] == [2, 2]


def test_a_rule_that_learns_is_not_shown_who_trains_no_more_as_running() -> None:
    Remembers.seen.clear()
    rules = Rules(Truncation(0.25), Remembers(), replacements=0, steps=40)
    state = population.start(SPACE, 4, 0)
    given = [known.hyperparameters for known in state]
    decide(rules, SPACE, state, reports([1.0, 3.0, math.nan, 4.0], 10), 0)
    assert not Remembers.seen  # three are left: nobody is in their worst quarter
    state, _ = decide(rules, SPACE, state, [Report(3, 40, 9.0)], 0)
    # 3 has come to the end; of the others 2 fails, and 0 copies: 1 alone trains on
    half = dataclasses.replace(rules, exploit=Truncation(0.5))
    _, orders = decide(half, SPACE, state, reports([1.0, 3.0, math.nan], 20), 0)
    assert [order.member for order in orders] == [0]
    assert Remembers.seen.pop().running == (given[1],)
    # a clone of weights that are at the end does not train either
    ended = state[1]._replace(score=None, begun=(40, 9.0))
    _, orders = decide(half, SPACE, (state[0], ended, *state[2:]), [Report(0, 20, 1.0), Report(2, 20, 2.0)], 0)
    assert [order.member for order in orders] == [0] and given[1] not in Remembers.seen.pop().running


def test_equal_scores_rank_by_member_so_symmetry_is_broken() -> None:
    state = population.start(SPACE, 2, 0)
    _, orders = decide(HALF, SPACE, state, reports([1.0, 1.0]), 0)
    assert [(order.member, order.donor) for order in orders] == [(1, 0)]


def test_another_seed_decides_otherwise() -> None:
    state = population.start(SPACE, 8, 4)
    said = reports(list(np.random.default_rng(0).normal(size=8)))
    assert decide(QUARTER, SPACE, state, said, 5)[1] != decide(QUARTER, SPACE, state, said, 4)[1]


def test_a_state_saved_as_json_goes_on_identically() -> None:
    kept = other = population.start(SPACE, 8, 4)
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = list(rng.normal(size=8))
        kept, orders = decide(QUARTER, SPACE, kept, reports(scores), 4)
        other, again = decide(QUARTER, SPACE, other, reports(scores), 4)
        other = population.from_plain(json.loads(json.dumps(population.to_plain(other))))
        assert orders == again and kept == other


def test_the_state_that_came_in_is_left_alone() -> None:
    state = population.start(SPACE, 8, 4)
    before = json.dumps(population.to_plain(state))
    decide(HALF, SPACE, state, reports([0.1 * i for i in range(8)]), 4)
    assert json.dumps(population.to_plain(state)) == before


def test_a_clone_without_a_new_score_neither_ranks_nor_donates() -> None:
    state = population.start(SPACE, 4, 0)
    state, orders = decide(QUARTER, SPACE, state, reports([0.0, 1.0, 2.0, 3.0]), 0)
    assert orders[0].member == 0 and state[0].score is None
    # only 1 to 3 have scores now: floor(3 * 0.25) = 0 members are in the tail
    _, later = decide(QUARTER, SPACE, state, [Report(1, 20, 0.5)], 0)
    assert later == []


def test_constants_of_the_loser_are_kept() -> None:
    space = {"rate": Float(0.1, 1.0), "shard": Constant(0)}
    state = tuple(
        known._replace(hyperparameters={**known.hyperparameters, "shard": member})
        for member, known in enumerate(population.start(space, 4, 0))
    )
    _, orders = decide(QUARTER, space, state, reports([0.0, 1.0, 2.0, 3.0]), 0)
    assert orders[0].member == 0 and orders[0].hyperparameters["shard"] == 0


def test_two_reports_of_one_member_are_refused() -> None:
    state = population.start(SPACE, 4, 0)
    with pytest.raises(ValueError, match="different members"):
        decide(QUARTER, SPACE, state, [Report(1, 1, 0.0), Report(1, 1, 0.0)], 0)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.51])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction must be in"):
        Truncation(fraction)


def climb(seed: int, steps: int, interval: int, rules: Rules, explore_all: bool = False) -> float:
    """Run the paper's toy through the pure policy and return the better member's Q."""
    space = {"h0": Float(0.0, 1.0), "h1": Float(0.0, 1.0)}
    places = np.full((2, 2), 0.9)
    starts = ({"h0": 1.0, "h1": 0.0}, {"h0": 0.0, "h1": 1.0})
    state = tuple(population.MemberState(start) for start in starts)
    for step in range(interval, steps + 1, interval):
        weights = np.array([[known.hyperparameters["h0"], known.hyperparameters["h1"]] for known in state])
        places = places * (1 - 0.02 * weights) ** interval
        quality = 1.2 - (places**2).sum(axis=1)
        if explore_all:
            state = tuple(explored(rules, space, known, seed, i, step) for i, known in enumerate(state))
            continue
        said = [Report(member, step, score) for member, score in enumerate(quality)]
        state, orders = decide(rules, space, state, said, seed)
        for order in orders:
            places[order.member] = places[order.donor]
    return float((1.2 - (places**2).sum(axis=1)).max())


def explored(rules: Rules, space, known: population.MemberState, seed: int, member: int, step: int):
    own, rng = known.hyperparameters, population.generator(seed, member, step)
    return known._replace(hyperparameters=explore(rules.explore, space, own, own, rng))


def test_the_papers_toy() -> None:
    papers = Rules(Truncation(0.5), Perturb(0.25, (0.8, 1.2)))
    # grid: one axis is never trained, Q = 1.2 - 0.81 - 0.81 * 0.98^(2 T)
    assert climb(0, 200, 4, LEFT_ALONE) == pytest.approx(1.2 - 0.81 - 0.81 * 0.98**400, abs=1e-12)
    assert climb(0, 100, 4, LEFT_ALONE) == pytest.approx(1.2 - 0.81 - 0.81 * 0.98**200, abs=1e-12)
    alone = np.array([climb(seed, 200, 4, papers, explore_all=True) for seed in range(100)])
    trained = np.array([climb(seed, 200, 4, papers) for seed in range(100)])
    assert alone.mean() == pytest.approx(1.17, abs=0.02)
    assert (trained >= 1.19).sum() >= 95
    assert 0.39 < alone.mean() < trained.mean()


def test_two_equal_members_never_copy_by_a_strict_rule() -> None:
    # the toy's trap: both climb one axis and score alike at every barrier
    assert climb(0, 200, 4, Rules(Tournament())) == pytest.approx(0.39, abs=1e-3)


def test_multiplication_alone_never_leaves_zero() -> None:
    # h = 0 is absorbing without resampling: PBT ends where the grid does
    assert climb(0, 200, 4, Rules(Truncation(0.5), Perturb(0.0, (0.8, 1.2)))) == pytest.approx(0.39, abs=0.01)
