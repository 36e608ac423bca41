import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from shoal.policies import bayesian, gaussian, population
from shoal.policies.bayesian import Bayesian, copula, newest_rows, standardised
from shoal.policies.encoding import coding, decode_point, encode_points, snapped
from shoal.policies.exploit import Truncation
from shoal.policies.explore import Explore, Interval, Past, Perturb, explore
from shoal.policies.gaussian import (
    GRIDS,
    Inputs,
    Kernel,
    condition,
    covariance,
    deviation,
    distances,
    evidence,
    mean,
)
from shoal.policies.population import Report, decide
from shoal.policies.region import FACTOR, FAILURES, LARGEST, SMALLEST, SUCCESSES, half_length
from shoal.policies.rules import Rules
from shoal.policies.space import Bool, Categorical, Constant, Float, Int, Ordered, Space, sample_space
from shoal.search.config.kinds import AnyExplore

LINE = {"h": Float(0.0, 1.0)}
MIXED = {
    "rate": Float(1e-5, 1e-1, log=True),
    "size": Int(1, 9),
    "inner": {"width": Ordered((16, 32, 64)), "kind": Categorical(("relu", "gelu", None)), "seed": Constant(7)},
    "flag": Bool(),
}


def inputs(rng: np.random.Generator, rows: int, numbers: int, categories: int) -> Inputs:
    times, scores = rng.uniform(size=(2, rows))
    return Inputs(times, scores, rng.uniform(size=(rows, numbers)), rng.integers(3, size=(rows, categories)))


def line(*numbers: float) -> Inputs:
    rows = len(numbers)
    return Inputs(
        np.zeros(rows), np.zeros(rows), np.array(numbers)[:, None], np.zeros((rows, 0), dtype=np.int64)
    )


def past(gain: Callable, rows: int, seed: int, space: Space = LINE, noise: float = 0.05) -> Past:
    """Rounds of four members with hyperparameters drawn from the space, all from the same score."""
    rng = np.random.default_rng(seed)
    drawn = [sample_space(space, rng) for _ in range(rows)]
    gains = [gain(given, place) + noise * rng.standard_normal() for place, given in enumerate(drawn)]
    rounds = [10 * (place // 4) for place in range(rows)]
    found = zip(rounds, gains, drawn, strict=True)
    return Past(
        tuple(Interval(step, 0.0, each, h, False) for step, each, h in found), (), 10 * (rows // 4), 0.0
    )


def chosen(given: Past, seed: int, space: Space = LINE, rule: Explore | None = None):
    rng = np.random.default_rng([seed, 1])
    return (rule or Bayesian()).propose(space, sample_space(space, rng), given, rng)


def bump(given: dict, place: int) -> float:
    return -((given["h"] - 0.7) ** 2)


@pytest.mark.parametrize("categories", [0, 2])
@pytest.mark.parametrize("mix", GRIDS["mix"])
def test_a_covariance_has_variance_one_and_no_negative_direction(categories: int, mix: float) -> None:
    rng = np.random.default_rng(0)
    for length in GRIDS["length"]:
        for forgetting in GRIDS["forgetting"]:
            rows = inputs(rng, 40, 3, categories)
            kernel = Kernel(length, float(rng.choice(GRIDS["context"])), forgetting, mix=mix)
            found = covariance(kernel, distances(rows, rows))
            assert np.diag(found) == pytest.approx(1.0)
            assert np.linalg.eigvalsh(found).min() > -1e-8


def test_covariances_by_hand() -> None:
    first, second = line(0.0), line(1.0)._replace(times=np.ones(1), scores=np.full(1, 2.0))
    # without forgetting the plain squared exponential: exp(-1 / 0.5)
    kernel = Kernel(length=0.5, forgetting=0.0)
    assert covariance(kernel, distances(first, second)) == pytest.approx(math.exp(-2))
    # (1 - 0.75)^(1 / 2) = 0.5 over the whole span of time
    kernel = Kernel(length=0.5, forgetting=0.75)
    assert covariance(kernel, distances(first, second)) == pytest.approx(0.5 * math.exp(-2))
    # the scores are 2 apart, which counts a tenth: exp(-(1 + 0.1 * 4) / 0.5)
    kernel = Kernel(length=0.5, context=0.1, forgetting=0.0)
    assert covariance(kernel, distances(first, second)) == pytest.approx(math.exp(-2.8))
    # one of two categories equal, numbers equal: (0.5 (0.5 + 1) + 0.5 * 0.5) / 1.5
    first, second = (line(0.3)._replace(categories=np.array([[0, other]])) for other in (1, 2))
    assert covariance(Kernel(mix=0.5), distances(first, second)) == pytest.approx(2 / 3)


def test_a_posterior_of_two_points_by_hand() -> None:
    # k(0, 1) = e^-1 = 0.36788; with noise 0.1 the weights of labels 1, -1 are 1, -1 over 1.1 - 0.36788
    learnt = condition(Kernel(1.0, 0.0, 0.0, 0.1), line(0.0, 1.0), np.array([1.0, -1.0]))
    # at 0: (1 - 0.36788) / 0.73212; 1 - (1.1 - 2 * 0.13534 + 1.1 * 0.13534) / (1.21 - 0.13534) = 0.08977
    # at 0.5: 0 by symmetry; 1 - 2 e^-0.5 / (1.1 + 0.36788) = 0.17360
    assert mean(learnt, line(0.0, 0.5)) == pytest.approx([0.86341, 0.0], abs=1e-5)
    assert deviation(learnt, line(0.0, 0.5)) == pytest.approx(
        [math.sqrt(0.08977), math.sqrt(0.17360)], abs=1e-4
    )


def test_a_posterior_and_its_evidence_agree_with_the_direct_formulas() -> None:
    rng = np.random.default_rng(1)
    rows, at, labels = inputs(rng, 30, 2, 2), inputs(rng, 7, 2, 2), rng.standard_normal(30)
    kernel = Kernel(0.3, 0.1, 0.5, 0.2, 0.25)
    learnt = condition(kernel, rows, labels)
    full = covariance(kernel, distances(rows, rows)) + 0.2 * np.eye(30)
    cross = covariance(kernel, distances(at, rows))
    assert mean(learnt, at) == pytest.approx(cross @ np.linalg.solve(full, labels), abs=1e-10)
    variances = 1 - np.diag(cross @ np.linalg.solve(full, cross.T))
    assert deviation(learnt, at) == pytest.approx(np.sqrt(variances), abs=1e-10)
    by_formula = (
        labels @ np.linalg.solve(full, labels) + np.linalg.slogdet(full)[1] + 30 * math.log(2 * math.pi)
    )
    assert evidence(kernel, distances(rows, rows), labels) == pytest.approx(-0.5 * by_formula, abs=1e-9)
    # rows that are certain keep the least noise alone
    assert deviation(condition(kernel, rows, labels, certain=30), rows).max() < 0.02


def test_gains_as_labels_by_hand() -> None:
    assert standardised(np.array([1.0, 3.0])) == pytest.approx([-1.0, 1.0])
    assert standardised(np.array([0.0] * 9 + [10.0])).max() == 2.0
    assert standardised(np.array([0.1 + 0.2, 0.3, 0.3])).tolist() == [0.0, 0.0, 0.0]
    # ranks 1, 2, 3 of 3: the quartiles of the normal distribution
    assert copula(np.array([3.0, 9.0, 1.0])) == pytest.approx([0.0, 0.67449, -0.67449], abs=1e-5)


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=40))
def test_copula_sees_the_order_alone(gains: list[int]) -> None:
    values = np.array(gains, dtype=np.float64)
    assert (copula(values) == copula(np.exp(values / 4) - 7)).all()
    assert (copula(values) == copula(values**3 + values)).all()


def test_coding_by_hand_and_there_and_back() -> None:
    code = coding(MIXED)
    given = {"rate": 1e-3, "size": 3, "inner": {"width": 64, "kind": "gelu", "seed": 1}, "flag": True}
    points = encode_points(code, [given])
    assert points.numbers == pytest.approx(np.array([[0.5, 0.25, 1.0]]))
    assert points.categories.tolist() == [[1, 1]]
    back = decode_point(code, points, 0, given)
    assert back == given | {"rate": pytest.approx(1e-3)} and type(back["size"]) is int and back["flag"] is True
    # whole numbers are rounded to a grid that has both ends
    moved = snapped(code, points._replace(numbers=np.array([[0.51, 0.95, 0.3]])))
    assert moved.numbers == pytest.approx(np.array([[0.51, 1.0, 0.5]]))


@pytest.mark.parametrize("region", [None, 0.2])
def test_no_proposal_leaves_its_domain_and_constants_stay_the_members_own(region: float | None) -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        given = past(lambda h, place: rng.standard_normal(), 4 + seed, seed, MIXED)
        broken = given.intervals[0]._replace(gain=math.nan)
        given = given._replace(intervals=(broken, *given.intervals), running=(sample_space(MIXED, rng),))
        donor, own = sample_space(MIXED, rng), sample_space(MIXED, rng)
        own["inner"]["seed"] = seed
        varied = explore(Bayesian(region=region), MIXED, donor, own, rng, given)
        assert varied["inner"].pop("seed") == seed
        inner = varied.pop("inner")
        assert all(MIXED["inner"][name].contains(value) for name, value in inner.items())
        assert all(MIXED[name].contains(value) for name, value in varied.items())


def test_the_best_of_a_noisy_bump_is_found() -> None:
    found = np.array([chosen(past(bump, 25, seed), seed)["h"] for seed in range(200)])
    assert ((found > 0.55) & (found < 0.85)).mean() >= 0.9


def test_a_moving_optimum_needs_forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    def moving(given: dict, place: int) -> float:
        return -((given["h"] - 0.2 - 0.6 * place / 80) ** 2)

    def error() -> float:
        return float(np.mean([abs(chosen(past(moving, 80, seed), seed)["h"] - 0.8) for seed in range(25)]))

    forgets = error()
    monkeypatch.setitem(gaussian.GRIDS, "forgetting", (0.0,))
    monkeypatch.setattr(gaussian, "START", Kernel(forgetting=0.0))
    assert forgets < 0.1 < error()


@pytest.mark.parametrize("score", [0.2, 0.8])
def test_the_score_that_the_donor_has_now_decides(score: float) -> None:
    found = []
    for seed in range(10):
        befores = np.random.default_rng([seed, 2]).uniform(size=60)
        given = past(lambda h, place, befores=befores: -((h["h"] - befores[place]) ** 2), 60, seed)
        rows = zip(given.intervals, befores, strict=True)
        placed = tuple(row._replace(before=float(before)) for row, before in rows)
        found.append(chosen(given._replace(intervals=placed, score=score), seed)["h"])
    assert abs(np.median(found) - score) < 0.15


def test_two_clones_of_one_round_go_to_different_places() -> None:
    space = {"h": Float(0.0, 1.0), "other": Float(0.0, 1.0)}
    apart = []
    for seed in range(30):
        given = past(bump, 8, seed, space)
        first = chosen(given, seed, space)
        second = chosen(given._replace(running=(first,)), seed, space)
        assert chosen(given, seed, space) == first
        apart.append(max(abs(first[name] - second[name]) for name in space))
    assert np.mean(np.array(apart) > 0.05) >= 0.9


def test_a_log_domain_is_searched_in_its_logarithm() -> None:
    space = {"rate": Float(1e-5, 1.0, log=True)}

    def peak(given: dict, place: int) -> float:
        return math.exp(-((math.log10(given["rate"]) + 3) ** 2))

    found = [math.log10(chosen(past(peak, 25, seed, space), seed, space)["rate"]) for seed in range(20)]
    assert np.mean(np.abs(np.array(found) + 3) < 0.5) >= 0.9


@pytest.mark.parametrize("other", [{}, {"h": Float(0.0, 1.0)}])
def test_the_best_arm_is_mostly_chosen(other: dict) -> None:
    space = {"kind": Categorical(("a", "b", "c"))} | other

    def arms(given: dict, place: int) -> float:
        return {"a": 0.0, "b": 0.3, "c": 0.1}[given["kind"]] + 0.1 * given.get("h", 0.0)

    kinds = [chosen(past(arms, 24, seed, space), seed, space)["kind"] for seed in range(20)]
    assert kinds.count("b") >= 18


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_both_ends_of_an_integer_are_reached(sign: int, log: bool) -> None:
    space = {"size": Int(1, 9, log)}
    found = [
        chosen(past(lambda h, place: sign * h["size"], 20, seed, space), seed, space) for seed in range(10)
    ]
    assert [each["size"] for each in found].count(9 if sign > 0 else 1) >= 8


def test_too_few_rows_are_left_to_perturbation() -> None:
    given = past(bump, 3, 0)
    assert chosen(given, 5) == chosen(given, 5, rule=Perturb())
    constant = {"seed": Constant(3)}
    assert chosen(past(lambda h, place: 0.0, 8, 0, constant), 0, constant) == {"seed": 3}


@pytest.mark.parametrize("gain", [math.nan, -math.inf])
def test_an_interval_that_diverged_tells_nothing(gain: float) -> None:
    given = past(bump, 12, 0)
    broken = given._replace(intervals=(*given.intervals, given.intervals[-1]._replace(gain=gain)))
    assert chosen(broken, 0) == chosen(given, 0)


def test_only_the_newest_rows_of_the_window_count() -> None:
    given = past(lambda h, place: bump(h, place) if place >= 20 else h["h"], 60, 0)
    newest = given._replace(intervals=given.intervals[20:])
    assert chosen(given, 0, rule=Bayesian(window=40)) == chosen(newest, 0)


def test_a_window_that_cuts_a_round_leaves_out_no_member_for_its_number() -> None:
    rows = [Interval(10 * (place // 16), 0.0, 0.0, {"h": place / 48}, False) for place in range(48)]
    seen = np.zeros(48)
    for seed in range(400):
        places = newest_rows(rows, 40, np.random.default_rng(seed))
        assert len(set(places)) == 40 and (np.diff(places) > 0).all() and set(range(16, 48)) <= set(places)
        seen[places] += 1
    # 8 of the oldest 16: each is there in about half of the draws; four standard errors of 0.025
    assert np.abs(seen[:16] / 400 - 0.5).max() < 0.1
    # a cut between rounds, or none, needs no draw
    assert newest_rows(rows, 32, None).tolist() == list(range(16, 48))
    assert newest_rows(rows, 48, None).tolist() == list(range(48))
    assert newest_rows(rows[:16], 4, np.random.default_rng(0)).size == 4


def test_a_kernel_is_fitted_to_rows_of_all_members(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []
    monkeypatch.setattr(bayesian.gaussian, "fit", lambda known, labels: fitted.append(known) or Kernel())
    space = {"h": Float(0.0, 1.0)}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        # one round of 120 members, whose numbers are their values
        intervals = tuple(
            Interval(0, 0.0, 0.1 * rng.normal(), {"h": member / 120}, False) for member in range(120)
        )
        Bayesian().propose(space, {"h": 0.5}, Past(intervals, (), 10, 0.0), rng)
    numbers = np.concatenate([known.numbers[:, 0] for known in fitted])
    assert {len(known.times) for known in fitted} == {bayesian.FITTED}
    assert (numbers < 1 / 6).mean() == pytest.approx(1 / 6, abs=0.03)


def test_the_spread_counts_the_more_the_more_rows_there_are() -> None:
    # without gains the mean is 0 everywhere, and what is worth is the width times the spread: the width is the
    # root of 0.2 log(0.4 rows), and of at least 0.2: 0.4 * 500 rows are needed for 1.06
    for rows, width in ((5, 0.2), (200, 0.2 * math.log(80)), (500, 0.2 * math.log(200))):
        rng = np.random.default_rng(0)
        given = [Interval(0, 0.0, 0.0, {"h": float(rng.uniform())}, False) for _ in range(rows)]
        code, labels = coding(LINE), np.zeros(rows)
        at = encode_points(code, [{"h": 0.123}, {"h": 0.9}])
        places = np.arange(min(rows, 5))
        worth = bayesian.acquisition(code, given, labels, Past((), (), 10, 0.0), places)(at)
        known = Inputs(np.zeros(rows), np.zeros(rows), *encode_points(code, given_of(given)))
        kernel = gaussian.fit(known.taken(places), labels[places])
        here = Inputs(np.ones(2), np.zeros(2), *at)
        spread = deviation(condition(kernel, known, labels), here)
        assert worth == pytest.approx(math.sqrt(width) * spread)


def given_of(intervals: list[Interval]) -> list[dict]:
    return [each.hyperparameters for each in intervals]


def test_a_plateau_of_scores_is_no_context() -> None:
    # equal scores may differ by rounding: 0.1 + 0.2 is not 0.3
    assert bayesian._unit(np.array([0.3, 0.1 + 0.2, 0.3])).tolist() == [0.0, 0.0, 0.0]
    assert bayesian._unit(np.array([1.0, 2.0, 5.0])).tolist() == [0.0, 0.25, 1.0]


def rounds(*won: bool) -> list[Interval]:
    """Rounds of an explored interval and one that is not."""
    return [
        Interval(step, 0.0, gain, {}, explored)
        for step, success in enumerate(won)
        for gain, explored in ((float(success), True), (0.5, False))
    ]


def test_a_region_grows_on_success_and_shrinks_on_failure() -> None:
    wins, losses = [True] * SUCCESSES, [False] * FAILURES
    assert (
        half_length([], 0.2)
        == half_length(rounds(*wins[1:]), 0.2)
        == half_length(rounds(*losses[1:]), 0.2)
        == 0.2
    )
    assert half_length(rounds(*wins), 0.2) == pytest.approx(0.2 * FACTOR)
    assert half_length(rounds(*losses), 0.2) == pytest.approx(0.2 / FACTOR)
    by_member = sorted(rounds(*wins), key=lambda each: each.explored)
    assert half_length(by_member, 0.2) == pytest.approx(0.2 * FACTOR)
    # a failure in between starts the count again
    assert half_length(rounds(True, False, True), 0.2) == 0.2
    diverged = [each._replace(gain=math.nan) if each.explored else each for each in rounds(*losses)]
    assert half_length(diverged, 0.2) == pytest.approx(0.2 / FACTOR)
    # 0.1, 0.067, then below the smallest: it starts again
    assert half_length(rounds(*losses * 2), 0.1) == 0.1
    # alone in its round nobody is the best
    assert half_length([each for each in rounds(*wins) if each.explored], 0.2) == 0.2


@given(st.lists(st.booleans(), max_size=60), st.floats(SMALLEST, LARGEST))
def test_a_region_never_leaves_its_bounds(won: list[bool], start: float) -> None:
    lengths = [half_length(rounds(*won[:count]), start) for count in range(len(won) + 1)]
    assert all(SMALLEST <= length <= LARGEST for length in lengths)


def test_a_clone_stays_in_its_region() -> None:
    space = {
        "h": Float(0.0, 1.0),
        "rate": Float(1e-4, 1.0, log=True),
        "kind": Categorical(("a", "b", "c")),
        "flag": Bool(),
    }
    rule, rng = Bayesian(region=0.2), np.random.default_rng(0)
    for seed in range(20):
        donor = sample_space(space, rng)
        given = past(
            lambda h, place: -abs(h["h"] - 0.9) + 0.3 * (h["kind"] == "c") + 0.2 * h["flag"], 30, seed, space
        )
        went = rule.propose(space, donor, given, rng)
        assert abs(went["h"] - donor["h"]) <= 0.2 + 1e-9
        assert abs(math.log10(went["rate"] / donor["rate"])) <= 0.8 + 1e-9
        assert (went["kind"] != donor["kind"]) + (went["flag"] != donor["flag"]) <= 1


@pytest.mark.parametrize("region", [None, 0.3])
def test_a_population_is_blind_to_the_order_of_arrival_and_goes_on_from_json(region: float | None) -> None:
    rules, rng = Rules(Truncation(), Bayesian(region=region)), np.random.default_rng(0)
    state = population.start(MIXED, 8, 3)
    explored = 0
    for step in (10, 20, 30, 40):
        said = [Report(member, step, float(member + rng.standard_normal())) for member in range(8)]
        first = decide(rules, MIXED, state, said, 3)
        mixed = [said[place] for place in rng.permutation(8)]
        plain = json.loads(json.dumps(population.to_plain(state)))
        assert decide(rules, MIXED, population.from_plain(plain), mixed, 3) == first
        state, orders = first
        explored += sum(len(state[order.donor].past) > 0 for order in orders)
    assert explored >= 4


def drifting(explore: Explore, seed: int) -> float:
    """Return the best score of four members whose best rate falls from 0.1 to 1e-4 in 20 intervals."""
    space, rules = {"rate": Float(1e-5, 1.0, log=True)}, Rules(Truncation(), explore)
    state, scores = population.start(space, 4, seed), np.zeros(4)
    for round_ in range(1, 21):
        rates = np.array([known.hyperparameters["rate"] for known in state])
        scores = scores + np.exp(-((np.log10(rates) + 1 + 3 * round_ / 20) ** 2) / 2)
        said = [Report(member, 10 * round_, float(score)) for member, score in enumerate(scores)]
        state, orders = decide(rules, space, state, said, seed)
        donors = {order.member: order.donor for order in orders}
        scores = scores[[donors.get(member, member) for member in range(4)]]
    return float(scores.max())


def test_a_small_population_follows_a_drift_better_than_by_perturbation() -> None:
    learns = np.array([drifting(Bayesian(), seed) for seed in range(12)])
    blind = np.array([drifting(Perturb(), seed) for seed in range(12)])
    assert learns.mean() > blind.mean() + 1


def test_a_run_names_it_as_its_rule() -> None:
    rules = TypeAdapter(AnyExplore)
    assert rules.validate_python("bayesian").build() == Bayesian()
    region = {"kind": "bayesian", "region": 0.2, "window": 100, "memory": 10}
    assert rules.validate_python(region).build() == Bayesian(100, 10, 0.2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window": 3}, "window must be at least 4"),
        ({"memory": 0}, "memory must be at least 1"),
        ({"region": 0.01}, r"region must be in \[0.05, 1.0\]"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Bayesian(**settings)
