import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import population
from policies.population import EXPLOITS, NoExploit, Order, Report, Truncation, decide
from policies.space import Categorical, Constant, Float

SPACE = {"rate": Float(1e-4, 1e-1, log=True), "kind": Categorical(("a", "b"))}


def reports(scores: list[float], step: int = 10) -> list[Report]:
    return [Report(member, step, score) for member, score in enumerate(scores)]


def test_truncation_by_hand() -> None:
    # 8 members, fraction 0.25: the two worst (3 and 5) each copy one of the two best (6 and 1)
    state = population.start(SPACE, 8, seed=1)
    scores = [0.5, 0.9, 0.4, 0.1, 0.6, 0.2, 1.0, 0.3]
    after, orders = decide(Truncation(0.25), SPACE, state, reports(scores), seed=1)
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


@given(
    st.lists(st.one_of(st.floats(-5, 5), st.just(math.nan)), min_size=1, max_size=24),
    st.sampled_from([0.2, 0.25, 0.5]),
    st.integers(0, 2**31),
)
def test_what_must_hold_for_any_scores(scores: list[float], fraction: float, seed: int) -> None:
    for exploit in (Truncation(fraction), NoExploit()):
        state = population.start(SPACE, len(scores), seed)
        after, orders = decide(exploit, SPACE, state, reports(scores), seed)
        targets, donors = {order.member for order in orders}, {order.donor for order in orders}
        assert not targets & donors
        assert len(orders) == len(targets) <= math.floor(len(scores) * fraction)
        assert all(math.isfinite(scores[donor]) for donor in donors)
        finite = [score for score in scores if math.isfinite(score)]
        if finite:
            assert scores.index(max(finite)) not in targets
        for order in orders:
            assert all(SPACE[name].contains(value) for name, value in order.hyperparameters.items())
        for member in set(range(len(scores))) - targets:
            assert after[member].hyperparameters == state[member].hyperparameters


def test_every_exploit_rule_is_in_the_dict_of_names() -> None:
    assert {"truncation": Truncation, "none": NoExploit} == EXPLOITS


def test_nan_ranks_last_and_never_donates() -> None:
    assert population.rank({0: math.nan, 1: -3.0, 2: 5.0, 3: math.nan}) == [2, 1, 0, 3]
    state = population.start(SPACE, 4, 0)
    _, orders = decide(Truncation(0.5), SPACE, state, reports([math.nan, math.nan, math.nan, 1.0]), 0)
    # the best half holds member 3 and a NaN one: only 3 can donate
    assert {order.donor for order in orders} == {3}
    _, nobody = decide(Truncation(0.5), SPACE, state, reports([math.nan] * 4), 0)
    assert nobody == []


def test_equal_scores_rank_by_member_so_symmetry_is_broken() -> None:
    state = population.start(SPACE, 2, 0)
    _, orders = decide(Truncation(0.5), SPACE, state, reports([1.0, 1.0]), 0)
    assert [(order.member, order.donor) for order in orders] == [(1, 0)]


def test_the_order_of_arrival_changes_nothing() -> None:
    state = population.start(SPACE, 8, 4)
    given_reports = reports(list(np.random.default_rng(0).normal(size=8)))
    first = decide(Truncation(0.25), SPACE, state, given_reports, 4)
    for shuffle in range(10):
        mixed = [given_reports[i] for i in np.random.default_rng(shuffle).permutation(8)]
        assert decide(Truncation(0.25), SPACE, state, mixed, 4) == first
    assert decide(Truncation(0.25), SPACE, state, given_reports, 5)[1] != first[1]


def test_a_state_saved_as_json_goes_on_identically() -> None:
    kept = other = population.start(SPACE, 8, 4)
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = list(rng.normal(size=8))
        kept, orders = decide(Truncation(0.25), SPACE, kept, reports(scores), 4)
        other, again = decide(Truncation(0.25), SPACE, other, reports(scores), 4)
        other = population.from_plain(json.loads(json.dumps(population.to_plain(other))))
        assert orders == again and kept == other


def test_the_state_that_came_in_is_left_alone() -> None:
    state = population.start(SPACE, 8, 4)
    before = json.dumps(population.to_plain(state))
    decide(Truncation(0.5), SPACE, state, reports([0.1 * i for i in range(8)]), 4)
    assert json.dumps(population.to_plain(state)) == before


def test_a_clone_without_a_new_score_neither_ranks_nor_donates() -> None:
    state = population.start(SPACE, 4, 0)
    state, orders = decide(Truncation(0.25), SPACE, state, reports([0.0, 1.0, 2.0, 3.0]), 0)
    assert orders[0].member == 0 and state[0].score is None
    # only 1 to 3 have scores now: floor(3 * 0.25) = 0 members are in the tail
    _, later = decide(Truncation(0.25), SPACE, state, [Report(1, 20, 0.5)], 0)
    assert later == []


def test_constants_of_the_loser_are_kept() -> None:
    space = {"rate": Float(0.1, 1.0), "shard": Constant(0)}
    state = tuple(
        known._replace(hyperparameters={**known.hyperparameters, "shard": member})
        for member, known in enumerate(population.start(space, 4, 0))
    )
    _, orders = decide(Truncation(0.25), space, state, reports([0.0, 1.0, 2.0, 3.0]), 0)
    assert orders[0].member == 0 and orders[0].hyperparameters["shard"] == 0


def test_two_reports_of_one_member_are_refused() -> None:
    state = population.start(SPACE, 4, 0)
    with pytest.raises(ValueError, match="different members"):
        decide(Truncation(0.25), SPACE, state, [Report(1, 1, 0.0), Report(1, 1, 0.0)], 0)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.51])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction must be in"):
        Truncation(fraction)


def climb(
    seed: int, steps: int, interval: int, exploit: population.Exploit, explore_all: bool = False
) -> float:
    """Run the paper's toy through the pure policy and return the better member's Q."""
    space = {"h0": Float(0.0, 1.0), "h1": Float(0.0, 1.0)}
    places = np.full((2, 2), 0.9)
    state = population.start(space, 2, seed)
    starts = ({"h0": 1.0, "h1": 0.0}, {"h0": 0.0, "h1": 1.0})
    state = tuple(known._replace(hyperparameters=start) for known, start in zip(state, starts, strict=True))
    for step in range(interval, steps + 1, interval):
        weights = np.array([[known.hyperparameters["h0"], known.hyperparameters["h1"]] for known in state])
        places = places * (1 - 0.02 * weights) ** interval
        quality = 1.2 - (places**2).sum(axis=1)
        if explore_all:
            state = explored(space, state, seed, step)
            continue
        said = [Report(member, step, score) for member, score in enumerate(quality)]
        state, orders = decide(exploit, space, state, said, seed)
        for order in orders:
            places[order.member] = places[order.donor]
    return float((1.2 - (places**2).sum(axis=1)).max())


def explored(space, state, seed: int, step: int):
    from policies.space import explore

    return tuple(
        known._replace(
            hyperparameters=explore(
                space, known.hyperparameters, population.generator(seed, member, step), 0.25, (0.8, 1.2)
            )
        )
        for member, known in enumerate(state)
    )


def test_the_papers_toy() -> None:
    papers = Truncation(0.5, 0.25, (0.8, 1.2))
    # grid: one axis is never trained, Q = 1.2 - 0.81 - 0.81 * 0.98^(2 T)
    assert climb(0, 200, 4, NoExploit()) == pytest.approx(1.2 - 0.81 - 0.81 * 0.98**400, abs=1e-12)
    assert climb(0, 100, 4, NoExploit()) == pytest.approx(1.2 - 0.81 - 0.81 * 0.98**200, abs=1e-12)
    alone = np.array([climb(seed, 200, 4, papers, explore_all=True) for seed in range(100)])
    trained = np.array([climb(seed, 200, 4, papers) for seed in range(100)])
    assert alone.mean() == pytest.approx(1.17, abs=0.02)
    assert (trained >= 1.19).sum() >= 95
    assert 0.39 < alone.mean() < trained.mean()


def test_multiplication_alone_never_leaves_zero() -> None:
    # h = 0 is absorbing without resampling: PBT ends where the grid does
    assert climb(0, 200, 4, Truncation(0.5, 0.0, (0.8, 1.2))) == pytest.approx(0.39, abs=0.01)


def test_an_order_names_its_parts() -> None:
    assert Order(1, 2, {"rate": 0.1})._fields == ("member", "donor", "hyperparameters")
