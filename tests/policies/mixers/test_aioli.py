"""Aioli on worlds whose effects are known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.parts.worlds import Linear, Noisy, live, toy_world
from shoal.cluster import nests
from shoal.policies.mixers.aioli import Aioli, together
from shoal.policies.mixers.effects import by_chance, learn_effects, smoothed_one_hot
from shoal.policies.mixers.mixer import Groups, Measurement
from shoal.policies.mixers.plain import Stratified
from shoal.policies.mixers.visits import BoundedMixing, begin_mixing, left, observe, plan

PUBLISHED: dict[str, Any] = {"scale": "total", "noise": 0.0}


def names(count: int) -> tuple[str, ...]:
    return tuple(f"group{number}" for number in range(count))


def many(count: int, steps: int, batch: int = 64) -> Groups:
    return Groups(names(count), (10_000,) * count, batch, steps)


def last(mixing: BoundedMixing, groups: Groups, world: Any, **more: Any) -> dict[str, Any]:
    return list(live(mixing, groups, world, **more))[-1]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([2, 3, 5, 8]), st.floats(0.0, 0.9), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99)
)
def test_the_effects_of_a_linear_world_are_recovered(
    count: int, smoothing: float, sweeps: int, batch: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    effects = rng.normal(0.3, 1.0, (count, count))  # some are harmful
    policy = Aioli(every=1000, probe_share=0.4, sweeps=sweeps, smoothing=smoothing, **PUBLISHED)
    # batches may be smaller than the number of groups: what is inverted is the realised mixture
    state = last(
        BoundedMixing(policy), many(count, 1000, batch), Linear(effects, np.full(count, 9.0)), seed=seed
    )
    assert np.abs(state["policy"]["effects"] - effects).max() < 1e-10 * max(1, 9 + 1000 * np.abs(effects).max())


def test_a_drift_common_to_all_probes_changes_no_proportion() -> None:
    effects = np.array([[0.02, -0.01, 0.0], [0.0, 0.01, 0.005], [0.003, 0.0, 0.03]])
    policy = Aioli(every=300, probe_share=0.24, sweeps=2, scale="none", noise=0, rate=5.0, update="cumulative")
    groups, drift = many(3, 900), np.array([0.5, -0.2, 0.1])
    still = last(BoundedMixing(policy), groups, Linear(effects, np.full(3, 9.0)))["policy"]
    drifting = last(BoundedMixing(policy), groups, Linear(effects, np.full(3, 9.0), drift))["policy"]
    assert drifting["effects"] - still["effects"] == pytest.approx(np.repeat(drift[:, None], 3, axis=1))
    assert np.abs(drifting["proportions"] - still["proportions"]).max() < 1e-12


def test_a_step_by_hand() -> None:
    # group 0 lowers both losses by 0.3 and 0.1 a step, group 1 only its own by 0.2. Column sums 0.4 and 0.2;
    # published scale: the sum of A, 0.6; so log odds = rate * (0.4 - 0.2) / 0.6 = 0.3 * 1/3 = 0.1
    world = Linear(np.array([[0.3, 0.0], [0.1, 0.2]]), np.full(2, 9.0))
    policy = Aioli(rate=0.3, every=16, probe_share=0.5, sweeps=2, smoothing=0.5, **PUBLISHED)
    state = last(BoundedMixing(policy), many(2, 16), world)["policy"]
    first, second = state["proportions"]
    assert np.log(first / second) == pytest.approx(0.1)
    # a harmful entry of -0.1 in place of 0: the sum of A less its smallest entry is 0.5 + 4 * 0.1 = 0.9,
    # the column sums are 0.4 and 0.1; robustly, 4 times the median of (0.3, 0.1, 0.1, 0.2) is 0.6; the columns'
    # largest entries, 0.3 and 0.2, have the mean 0.25
    effects = np.array([[0.3, -0.1], [0.1, 0.2]])
    for scale, odds in (
        ("total", 0.3 * 0.3 / 0.9),
        ("median", 0.3 * 0.3 / 0.6),
        ("column", 0.36),
        ("none", 0.09),
    ):
        state = last(
            BoundedMixing(replace(policy, scale=scale)), many(2, 16), Linear(effects, np.full(2, 9.0))
        )["policy"]
        assert np.log(np.divide(*state["proportions"])) == pytest.approx(odds), scale


def test_the_two_updates_by_hand() -> None:
    # the same effects every round: log odds of 0.1 a round as above
    world = np.array([[0.3, 0.0], [0.1, 0.2]])
    policy = Aioli(rate=0.3, every=16, probe_share=0.5, sweeps=2, memory=0.5, **PUBLISHED)
    odds = {}
    for update in ("cumulative", "from_uniform_ema"):
        mixing = BoundedMixing(replace(policy, update=update))
        state = last(mixing, many(2, 48), Linear(world, np.full(2, 99.0)))["policy"]
        odds[update] = np.log(np.divide(*state["proportions"]))
    assert odds == pytest.approx({"cumulative": 0.3, "from_uniform_ema": 0.1})


def test_perplexity_as_the_objective_by_hand() -> None:
    # losses that stay at 2 and 1: a nat of the first counts e times as much, 2 e / (1 + e) = 1.46212 and
    # 0.53788; columns 0.3 * 1.46212 + 0.1 * 0.53788 = 0.49242 and 0.2 * 0.53788 = 0.10758; log odds
    # 0.3 * 0.38485 / 0.6
    world = Linear(1e-6 * np.array([[0.3, 0.0], [0.1, 0.2]]), np.array([2.0, 1.0]))
    policy = Aioli(rate=0.3, every=16, probe_share=0.5, sweeps=2, objective="perplexity", **PUBLISHED)
    state = last(BoundedMixing(policy), many(2, 16), world)["policy"]
    assert np.log(np.divide(*state["proportions"])) == pytest.approx(0.19242, abs=1e-4)
    with pytest.raises(ValueError, match="objective must be weights or perplexity"):
        Aioli(objective="loss")


def test_effects_of_short_steps_are_the_inner_products_of_gradients() -> None:
    rng = np.random.default_rng(0)
    centres, hessians = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, (3, 4))

    def errors_at(rate: float) -> float:
        """Return the relative error of A / rate beside the gradients' Gram matrix, SGD from 0."""
        drops, at = [], np.zeros(4)
        gradients = hessians * (at - centres)
        for group in range(3):  # each probe from the same place: the limit is about one step
            moved = at - rate * gradients[group]
            fell = 0.5 * (hessians * (at - centres) ** 2).sum(axis=1)
            fell -= 0.5 * (hessians * (moved - centres) ** 2).sum(axis=1)
            drops.append(tuple(np.array([value]) for value in fell))
        found = learn_effects(np.eye(3), drops, 1, np.ones(3), 1)
        assert found is not None
        gram = gradients @ gradients.T
        return float(np.abs(found.matrix / rate - gram).max() / np.abs(gram).max())

    far, near = errors_at(1e-2), errors_at(1e-3)
    assert near < 1e-2 and far / near == pytest.approx(10, rel=0.05)


def toy_result(mixing: BoundedMixing, steps: int = 4000, seed: int = 0) -> float:
    world = toy_world()
    last(mixing, many(3, steps, 400), world, seed=seed)
    return float(world.loss.mean())


def test_the_toy_world_is_ordered_as_it_should_be() -> None:
    # 20 rounds of 200 steps, k = h = 4: 48 steps of probes a round, f = 0.5 is a smoothing of 0.75
    policy = Aioli(every=200, probe_share=0.24, sweeps=4, smoothing=0.75, **PUBLISHED)
    stratified = toy_result(BoundedMixing(Stratified()))
    assert stratified == pytest.approx(3.7424, abs=1e-4)
    found = {
        (update, rate): toy_result(BoundedMixing(replace(policy, update=update, rate=rate)))
        for update in ("cumulative", "from_uniform_ema")
        for rate in (0.1, 0.2, 0.5, 1.0)
    }
    grid = np.array([(i, j, 20 - i - j) for i in range(21) for j in range(21 - i)]) / 20
    world = toy_world()
    ends = world.floors + (6 - world.floors) * (1 - grid @ world.effects.T) ** 4000  # (mixtures, targets)
    best = ends.mean(axis=1).min()
    assert best == pytest.approx(3.7359, abs=1e-3)
    slow = [found["from_uniform_ema", rate] for rate in (0.1, 0.2, 0.5, 1.0)]
    assert best < found["cumulative", 0.2] < min(slow) and max(slow) < stratified
    assert found["cumulative", 1.0] > stratified  # greedy steps overshoot


def test_a_probe_is_inverted_as_it_was_trained() -> None:
    # 7 groups in batches of 8, smoothing 7/24 (0.75 on the diagonal), probes of 10 steps: 80 rows each
    smoothing = 7 / 24
    policy = Aioli(every=1000, probe_share=0.14, sweeps=2, smoothing=smoothing, noise=0)
    groups = many(7, 1000, 8)
    assert policy.probe_steps(groups) == 10
    state, wanted = begin_mixing(BoundedMixing(policy), groups, 0), 80 * smoothed_one_hot(7, smoothing)
    world, probes = Linear(np.eye(7), np.full(7, 9.0)), 0
    while left(groups, state):
        visit, state = plan(BoundedMixing(policy), groups, state)
        if visit.name.startswith("probe"):
            probes += 1
            rows, column = visit.counts.sum(axis=0), int(visit.name.split()[1])
            assert rows.sum() == 80 and np.abs(rows - wanted[:, column]).max() < 1
        for counts in visit.counts:
            world.train(counts / 8)
        state = observe(BoundedMixing(policy), groups, state, visit, Measurement(validation=world.losses()))
        if len(state["policy"]["mixtures"]) == 14:
            assert np.allclose(np.sum(state["policy"]["mixtures"], axis=0), 2)
    assert probes == 14 and np.allclose(state["policy"]["effects"], np.eye(7), atol=1e-9)


def test_rows_that_came_otherwise_than_planned_are_inverted_as_they_came() -> None:
    effects, groups = np.array([[0.3, 0.1], [0.0, 0.2]]), many(2, 100, 10)
    policy = Aioli(every=100, probe_share=0.2, sweeps=2, noise=0)
    world, state, rng = (
        Linear(effects, np.full(2, 99.0)),
        begin_mixing(BoundedMixing(policy), groups, 0),
        np.random.default_rng(0),
    )
    while left(groups, state):
        visit, state = plan(BoundedMixing(policy), groups, state)
        first = rng.integers(0, 11, visit.steps)  # the stream gave what it had
        counts = np.column_stack([first, 10 - first])
        for row in counts:
            world.train(row / 10)
        state = observe(
            BoundedMixing(policy), groups, state, visit, Measurement(counts, validation=world.losses())
        )
    assert state["policy"]["effects"] == pytest.approx(effects, abs=1e-9) and state["seen"].sum() == 1000


@pytest.mark.parametrize(
    ("effects", "loss", "why"),
    [
        (np.zeros((3, 3)), np.full(3, 4.0), "kept: all groups have the same effect"),
        (np.full((3, 3), 0.25), np.full(3, 4.0), "kept: all groups have the same effect"),
        (np.eye(3), np.array([4.0, np.nan, 4.0]), "kept: a loss is not finite, or the probes were alike"),
    ],
)
def test_without_a_difference_the_proportions_stay(effects: Any, loss: Any, why: str) -> None:
    for update in ("cumulative", "from_uniform_ema"):
        policy = Aioli(every=64, probe_share=0.4, sweeps=2, update=update, noise=0)
        state = last(BoundedMixing(policy), many(3, 128), Linear(effects, loss))["policy"]
        assert state["proportions"] == pytest.approx(np.full(3, 1 / 3)) and state["decision"] == why


def test_one_group_needs_no_probe_and_one_target_is_enough() -> None:
    state = last(BoundedMixing(Aioli(every=50)), many(1, 200), Linear(np.eye(1), np.ones(1)))
    assert state["probe_steps"] == 0 and state["policy"]["proportions"].tolist() == [1.0]
    groups = Groups(names(3), (9, 9, 9), 64, 300, targets=("elsewhere",))
    policy = Aioli(every=100, probe_share=0.3, rate=1.0, **PUBLISHED)
    # one row A = (0.1, 0.2, 0.1): log odds of the second against the first rate * 0.1 / 0.4
    state = last(BoundedMixing(policy), groups, Linear(np.array([[0.1, 0.2, 0.1]]), np.array([50.0])))["policy"]
    assert np.log(state["proportions"] / state["proportions"][0]) == pytest.approx([0, 0.25, 0])


def test_steps_and_evaluations_are_charged() -> None:
    # 4 rounds of 100 steps, in each 3 groups * 2 sweeps of 5 steps; an evaluation before the first, after each
    # probe and at the end of each round but the last
    policy = Aioli(every=100, probe_share=0.3, sweeps=2)
    world = Noisy(toy_world(), 8, 1e-3, np.random.default_rng(0))
    state = last(BoundedMixing(policy), many(3, 400), world)
    assert state["step"] == 400 and state["probe_steps"] == 4 * 30 and state["evaluations"] == 1 + 4 * 6 + 3
    # a pass at the price of half a step shortens the run: 28 passes are 14 steps
    costly = replace(many(3, 400), evaluation_steps=0.5)
    state = last(BoundedMixing(policy), costly, Noisy(toy_world(), 8, 1e-3, np.random.default_rng(0)))
    assert state["step"] + np.ceil(0.5 * state["evaluations"]) == 400


def test_a_run_cut_inside_a_probe_and_resumed_goes_on_alike() -> None:
    policy = Aioli(every=100, probe_share=0.3, sweeps=2, noise=0)
    groups = many(3, 200)
    whole = last(BoundedMixing(policy), groups, toy_world(), limit=3)
    world = toy_world()
    for state in live(BoundedMixing(policy), groups, world, limit=3):
        if state["part"] and state["part"]["name"].startswith("probe") and len(state["policy"]["drops"]) == 2:
            break
    assert state["part"]["done"] == 3 and state["part"]["steps"] == 5
    restored = nests.loads(nests.dumps(state))
    resumed = last(BoundedMixing(policy), groups, world, state=restored, limit=3)
    assert (resumed["policy"]["effects"] == whole["policy"]["effects"]).all()
    assert resumed["seen"].tolist() == whole["seen"].tolist()


def test_errors_say_how_far_the_effects_are_off() -> None:
    effects, groups = np.array([[0.03, 0.0, 0.01], [0.0, 0.02, 0.0], [0.01, 0.0, 0.02]]), many(3, 61)
    policy, deviations = Aioli(every=61, probe_share=0.98, sweeps=2), []
    for seed in range(60):
        world = Noisy(Linear(effects, np.full(3, 9.0)), 40, 0.05, np.random.default_rng(seed))
        state = last(BoundedMixing(policy), groups, world, seed=seed)["policy"]
        deviations.append((state["effects"] - effects) / state["errors"])
    assert 0.85 < np.std(deviations) < 1.15


def test_chance_is_that_of_the_f_test() -> None:
    for size, groups, freedom in ((2.0, 2, 5.0), (1.3, 5, 8.5), (0.4, 3, 100.0), (1.96, 2, np.inf)):
        exact = scipy.stats.f.sf(size**2, groups - 1, min(freedom, 1e6))
        assert by_chance(size, groups, freedom) == pytest.approx(exact, rel=1e-6)
    assert by_chance(np.inf, 3, 4.0) == 0.0


@pytest.mark.parametrize("row_noise", [0.0, 0.01])
def test_two_kinds_of_noise_are_told_apart(row_noise: float) -> None:
    groups, deviations = many(3, 121), []
    policy = Aioli(every=121, probe_share=0.98, sweeps=4)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        world = Noisy(Linear(np.zeros((3, 3)), np.full(3, 9.0)), 40, 0.05, rng, row_noise)
        state = last(BoundedMixing(policy), groups, world, seed=seed)["policy"]
        deviations.append(state["average"] / state["average_errors"])
    # Student's with few degrees of freedom is wider than a normal distribution
    assert 0.85 < np.std(deviations) < 1.5


@pytest.mark.parametrize("update", ["cumulative", "from_uniform_ema"])
def test_nothing_moves_while_the_spread_is_inside_the_noise(update: str) -> None:
    policy = Aioli(every=61, probe_share=0.98, sweeps=2, rate=1.0, update=update)
    groups, moves = many(3, 61), 0
    for seed in range(40):
        world = Noisy(Linear(np.full((3, 3), 0.01), np.full(3, 9.0)), 40, 0.02, np.random.default_rng(seed))
        state = last(BoundedMixing(policy), groups, world, seed=seed)["policy"]
        moves += state["decision"] == "moved"
        assert np.ptp(state["proportions"]) < 1e-12 or state["decision"] == "moved"
    assert moves <= 5  # 0.046 of 40 is 2
    world = Noisy(Linear(np.diag([0.05, 0.01, 0.01]), np.full(3, 9.0)), 40, 0.02, np.random.default_rng(0))
    state = last(BoundedMixing(policy), groups, world)["policy"]
    assert state["decision"] == "moved" and state["proportions"][0] > 0.36 and state["chance"] < 0.01


def test_one_sequence_or_one_sweep_tells_no_error() -> None:
    with pytest.raises(ValueError, match=r"sweeps must be at least 2 with noise 2, .* but got 1"):
        begin_mixing(BoundedMixing(Aioli(every=61, probe_share=0.5, sweeps=1)), many(3, 61), 0)
    with pytest.raises(ValueError, match="two validation sequences of each target and two sweeps"):
        last(BoundedMixing(Aioli(every=61, probe_share=0.5, sweeps=2)), many(3, 61), toy_world())
    # without a gate neither is asked for; the errors say that they are not known
    state = last(BoundedMixing(Aioli(every=61, probe_share=0.5, sweeps=1, noise=0)), many(3, 61), toy_world())[
        "policy"
    ]
    assert state["decision"] == "moved" and np.isnan(state["errors"]).all() and np.isnan(state["spread"])
    # one group is never probed, so it needs no sweeps
    begin_mixing(BoundedMixing(Aioli(sweeps=1)), many(1, 61), 0)


@pytest.mark.parametrize(("noise", "share"), [(2.0, 0.0455), (1.0, 0.3173)])
def test_the_gate_has_its_size_where_the_rows_of_a_probe_are_the_noise(noise: float, share: float) -> None:
    policy, moved = Aioli(every=50, probe_share=0.25, sweeps=2, noise=noise), 0
    for seed in range(300):
        world = Noisy(
            Linear(np.full((3, 3), 0.001), np.full(3, 5.0)), 16, 0.0, np.random.default_rng(seed), 0.004
        )
        moved += last(BoundedMixing(policy), many(3, 50), world, seed=seed)["policy"]["decision"] == "moved"
    assert abs(moved / 300 - share) < 3.5 * np.sqrt(share * (1 - share) / 300)


def test_only_the_ratios_of_an_objective_count() -> None:
    effects = np.array([[0.3, -0.1], [0.1, 0.2]])
    policy = Aioli(rate=0.3, every=16, probe_share=0.5, sweeps=2, noise=0.0)
    odds = {}
    for scale in ("total", "median", "column", "none"):
        for objective in ((), (1.0, 1.0), (10.0, 10.0), (0.5, 0.5), (3.0, 1.0), (0.3, 0.1)):
            told = replace(policy, scale=scale, objective=objective)
            shares = last(BoundedMixing(told), many(2, 16), Linear(effects, np.full(2, 9.0)))["policy"][
                "proportions"
            ]
            odds[scale, objective] = float(np.log(np.divide(*shares)))
        equal = [odds[scale, weights] for weights in ((), (1.0, 1.0), (10.0, 10.0), (0.5, 0.5))]
        assert equal == pytest.approx([equal[0]] * 4)
        assert odds[scale, (3.0, 1.0)] == pytest.approx(odds[scale, (0.3, 0.1)]) != equal[0]
    # weights 1.5 and 0.5: rows (0.45, -0.15) and (0.05, 0.1), columns 0.5 and -0.05; their median size is 0.125
    assert odds["median", (3.0, 1.0)] == pytest.approx(0.3 * 0.55 / 0.5)
    # published scale: their sum 0.45 and four times 0.15
    assert odds["total", (3.0, 1.0)] == pytest.approx(0.3 * 0.55 / 1.05)
    assert odds["none", (3.0, 1.0)] == pytest.approx(0.3 * 0.55)


@pytest.mark.parametrize("scale", ["total", "median", "column"])
def test_a_target_that_does_not_count_changes_no_step(scale: str) -> None:
    policy = Aioli(rate=0.3, every=16, probe_share=0.5, sweeps=2, noise=0.0, scale=scale, objective=(1.0, 0.0))
    shares = [
        last(BoundedMixing(policy), many(2, 16), Linear(np.array([[0.3, 0.1], row]), np.full(2, 9.0)))[
            "policy"
        ]["proportions"]
        for row in ([0.0, 0.0], [5.0, -7.0])
    ]
    assert shares[0] == pytest.approx(shares[1]) and shares[0][0] > 0.5


def test_effects_of_which_most_are_0_are_no_reason_to_stay() -> None:
    # six of nine entries are 0, so their median is: their mean size of 0.06 / 9 stands in
    policy = Aioli(rate=0.3, every=64, probe_share=0.4, sweeps=2, noise=0.0)
    state = last(BoundedMixing(policy), many(3, 64), Linear(np.diag([0.04, 0.01, 0.01]), np.full(3, 9.0)))[
        "policy"
    ]
    assert np.log(np.divide(*state["proportions"][:2])) == pytest.approx(0.3 * 0.03 / 0.06)


def test_a_world_without_any_spread_moves() -> None:
    # three equal sequences and two sweeps, which differ by rounding alone: no degrees of freedom are left
    class Threefold(Linear):
        def losses(self) -> tuple[Any, ...]:
            return tuple(np.full(3, value) for value in self.loss)

    decisions = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        policy = Aioli(every=50, probe_share=0.3, sweeps=2, update=("cumulative", "from_uniform_ema")[seed % 2])
        world = Threefold(rng.normal(0.01, 0.01, (3, 3)), np.full(3, 4.0))
        state = last(BoundedMixing(policy), many(3, 150), world, seed=seed)["policy"]
        decisions.append(state["decision"])
        assert np.isfinite(state["proportions"]).all()
    assert set(decisions) == {"moved"}


def test_degrees_of_freedom_by_hand() -> None:
    # equal variances of 4 and 6 degrees: (1 + 1)^2 / (1 / 4 + 1 / 6) = 9.6
    one = np.ones(3)
    assert together(one, 4.0, one, 6.0) == pytest.approx(9.6)
    # an old error of half the size: (1 + 0.25)^2 / (1 / 4 + 0.0625 / 6)
    assert together(one, 4.0, 0.5 * one, 6.0) == pytest.approx(6.0)
    assert together(one, 4.0, 0 * one, np.inf) == pytest.approx(4.0)
    assert together(1e-100 * one, 4.0, 1e-100 * one, 6.0) == pytest.approx(9.6)  # whatever the unit
    assert together(0 * one, 0.0, 0 * one, np.inf) == np.inf


def test_the_average_of_rounds_keeps_the_freedom_of_the_old_ones() -> None:
    policy = Aioli(every=61, probe_share=0.9, sweeps=2, memory=0.5, noise=2.0, scale="none")
    world = Noisy(Linear(np.full((3, 3), 0.01), np.full(3, 9.0)), 40, 0.02, np.random.default_rng(0), 0.02)
    first, *_, second = [
        state["policy"]
        for state in live(BoundedMixing(policy), many(3, 122), world)
        if not state["policy"]["order"]
    ]
    assert first["rounds"] == 1 and second["rounds"] == 2
    new = np.sqrt(second["average_errors"] ** 2 - (0.5 * first["average_errors"]) ** 2)
    alone = together(new, first["freedom"], 0 * new, np.inf)
    # two rounds of errors of about the same size have about twice the degrees of freedom of one
    assert second["freedom"] > 1.2 * max(alone, first["freedom"])


@pytest.mark.parametrize(("restart", "expected"), [("prior", (0.6, 0.2, 0.2)), ("uniform", (1 / 3,) * 3)])
def test_a_prior_is_trained_at_first_and_may_be_where_it_goes_on_from(
    restart: str, expected: tuple[float, ...]
) -> None:
    policy = Aioli(
        every=50, probe_share=0.3, sweeps=1, noise=0, rate=0.0, prior=(0.6, 0.2, 0.2), prior_steps=40
    )
    states = list(live(BoundedMixing(replace(policy, restart=restart)), many(3, 200, 10), toy_world()))
    assert states[0]["step"] == 40 and states[0]["seen"].tolist() == [240, 80, 80]
    assert states[-1]["policy"]["proportions"] == pytest.approx(expected)
    # 40 at the prior, then rounds of 50: three, the last probed too since 40 steps stay after 10 of it
    assert states[-1]["step"] == 200 and states[-1]["policy"]["round"] == 4


def test_the_end_of_a_run_may_be_upsampled_by_what_one_round_of_probes_finds() -> None:
    # 80 % of the steps at a mixture by hand, then one round: group 2 alone lowers the losses at all
    policy = Aioli(
        every=40,
        probe_share=0.3,
        sweeps=1,
        noise=0,
        rate=3.0,
        prior=(0.5, 0.4, 0.1),
        prior_steps=160,
        scale="column",
    )
    world = Linear(np.array([[0.0, 0.0, 0.01]] * 3), np.full(3, 9.0))
    states = list(live(BoundedMixing(policy), many(3, 200, 10), world))
    assert states[0]["step"] == 160 and states[0]["seen"].tolist() == [800, 640, 160]
    found = states[-1]
    assert found["probe_steps"] == 12 and found["step"] == 200
    # pulls, three targets' 0.01 for group 2, less their mean: over the mean largest entry 0.01 / 3 that is
    # -3, -3, 6, so that log odds grow by 3 * 9
    assert found["policy"]["proportions"] == pytest.approx([0, 0, 1], abs=1e-4)


def test_without_a_prior_the_first_steps_are_trained_at_equal_shares() -> None:
    policy = Aioli(every=50, probe_share=0.3, sweeps=1, noise=0, prior_steps=40)
    states = list(live(BoundedMixing(policy), many(3, 100, 9), toy_world()))
    assert states[0]["step"] == 40 and states[0]["seen"].tolist() == [120] * 3 and not states[0]["probe_steps"]


def test_settings_may_change_at_any_visit() -> None:
    policy, groups, world = Aioli(every=100, probe_share=0.3, sweeps=2, noise=0), many(3, 600), toy_world()
    state, rng = begin_mixing(BoundedMixing(policy), groups, 0), np.random.default_rng(0)
    while left(groups, state):
        share, sweeps = rng.uniform(0.1, 0.9), int(rng.integers(1, 4))
        now = BoundedMixing(
            replace(
                policy,
                rate=rng.uniform(0, 2),
                probe_share=share,
                sweeps=sweeps,
                every=int(rng.integers(50, 99)),
            ),
            floor=rng.uniform(0, 0.3),
        )
        visit, state = plan(now, groups, state, int(rng.integers(1, 30)))
        for counts in visit.counts:
            world.train(counts / counts.sum())
        state = observe(now, groups, state, visit, Measurement(validation=world.losses()))
    assert state["step"] == 600 and state["policy"]["round"] > 3
    assert state["policy"]["proportions"].sum() == pytest.approx(1)
    wrong = np.abs(state["policy"]["effects"]).max()
    assert 0 < wrong < 0.01  # still effects of one step


def test_probes_longer_than_a_round_are_refused() -> None:
    with pytest.raises(ValueError, match="4 sweeps of 5 probes of 1 steps are 20"):
        begin_mixing(BoundedMixing(Aioli(every=20)), many(5, 100), 0)
