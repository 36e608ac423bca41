"""Skill-It, DoReMi, DoGE and ADO by hand, and the limits in which they coincide."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shoal.policies.arrays import Vector
from shoal.policies.mixers.ado import ADO
from shoal.policies.mixers.aioli import Aioli
from shoal.policies.mixers.curves import LossCurve
from shoal.policies.mixers.doge import DoGE
from shoal.policies.mixers.doremi import DoReMi, clipped_excess
from shoal.policies.mixers.effects import learn_effects
from shoal.policies.mixers.mixer import Groups, Measurement, MixerState, Visit
from shoal.policies.mixers.proxy import answer
from shoal.policies.mixers.skillit import SkillIt, skills_graph
from shoal.policies.mixers.visits import (
    BoundedMixing,
    begin_mixing,
    counted,
    current_mixture,
    left,
    observe,
    plan,
    reweighed,
)
from shoal.policies.mixing import exponentiated, normalise


def groups_of(rows: tuple[int, ...], steps: int, batch: int = 30, targets: tuple[str, ...] = ()) -> Groups:
    return Groups(tuple("abcdef"[: len(rows)]), rows, batch, steps, targets)


def follow(policy: Any, groups: Groups, measure: Callable[[int, Visit], Measurement]) -> list[MixerState]:
    """Run to the end on what `measure` says of each visit, given the step that it begins at."""
    states = [begin_mixing(BoundedMixing(policy), groups, 0)]
    while left(groups, states[-1]):
        visit, state = plan(BoundedMixing(policy), groups, states[-1])
        states.append(observe(BoundedMixing(policy), groups, state, visit, measure(state["step"], visit)))
    return states


def validation(*losses: float) -> Measurement:
    return Measurement(validation=tuple(np.array([loss]) for loss in losses))


GRAPH = ((0.5, 0.2), (0.0, 0.1))


def test_skill_it_by_hand() -> None:
    # at first exp(0.2 * row sums (0.7, 0.1)): log odds 0.2 * 0.6 = 0.12
    policy, groups = SkillIt(GRAPH, rate=0.2, every=10, window=2), groups_of((9, 9), 30)
    states = follow(policy, groups, lambda step, visit: validation(4.0 - (step + 10) / 10, 2.0))
    odds = [np.log(np.divide(*state["policy"]["proportions"])) for state in states]
    # losses (3, 2): rows times losses 1.9 and 0.2; then (3, 2) + (2, 2) = (5, 4): 3.3 and 0.4; after the
    # last visit nothing is measured
    assert odds == pytest.approx([0.12, 0.34, 0.58, 0.58])


def test_skill_it_looks_back_as_far_as_its_window() -> None:
    identity, groups = ((1.0, 0.0), (0.0, 1.0)), groups_of((9, 9), 60)
    states = follow(
        SkillIt(identity, rate=0.1, every=10, window=2), groups, lambda step, visit: validation(step, 0.0)
    )
    odds = [np.log(np.divide(*state["policy"]["proportions"])) for state in states]
    # losses 0, 10, 20, 30, 40: the last two of them, times 0.1
    assert odds == pytest.approx([0.0, 0.0, 1.0, 3.0, 5.0, 7.0, 7.0])


def test_a_target_whose_loss_is_not_finite_costs_skill_it_no_other() -> None:
    identity = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    told = [(2.0, 1.0, np.nan), (3.0, np.inf, 4.0), (np.nan,) * 3, (1.0, 1.0, 1.0)]
    policy, groups = SkillIt(identity, rate=0.1, every=10, window=1), groups_of((9, 9, 9), 40)
    states = follow(policy, groups, lambda step, visit: validation(*told[step // 10]))
    shares = [state["policy"]["proportions"] for state in states[1:4]]
    odds = [np.log(each / each[0]) for each in shares]
    # never measured: the mean of the others, 1.5; later what it had, 1; of none that is finite nothing comes
    assert odds[0] == pytest.approx([0, -0.1, -0.05])
    assert odds[1] == pytest.approx([0, -0.2, 0.1]) and odds[2] == pytest.approx(odds[1])


def test_skill_it_reads_the_graph_by_rows_trained() -> None:
    groups = groups_of((9, 9, 9), 20)
    same = lambda step, visit: validation(2.0, 2.0, 2.0)  # noqa: E731
    # a chain: training on 0 also teaches 1, and on 1 also 2, so the prerequisites are raised
    chain = ((1.0, 1.0, 0.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    shares = follow(SkillIt(chain, every=10), groups, same)[-1]["policy"]["proportions"]
    assert shares[0] == pytest.approx(shares[1]) and shares[0] > 1 / 3 > shares[2]
    turned = tuple(zip(*chain, strict=True))
    turned_shares = follow(SkillIt(turned, every=10), groups, same)[-1]["policy"]["proportions"]
    assert turned_shares == pytest.approx(shares[::-1])
    nothing = ((0.0,) * 3,) * 3
    assert follow(SkillIt(nothing, every=10), groups, same)[-1]["policy"]["proportions"] == pytest.approx(
        [1 / 3] * 3
    )


def test_a_skills_graph_is_relative_and_by_rows_trained() -> None:
    after = np.array([[2.0, 3.0], [4.0, 1.0]])  # of the run on a, then of the run on b
    assert skills_graph(np.array([4.0, 4.0]), after) == ((0.5, 0.25), (0.0, 0.75))


def test_doremi_by_hand() -> None:
    # excess (0.5, 0.1) with rate 1: log odds grow by 0.4 a step; then b is absent and keeps its 0.1
    told = [[0.5, 0.1], [0.5, np.nan]]
    groups = groups_of((9, 9), 2)
    policy = DoReMi(smoothing=0.0, proxy_share=1.0)
    states = follow(policy, groups, lambda step, visit: Measurement(excess=np.array([told[step]])))
    first, second = (np.exp(odds) / (1 + np.exp(odds)) for odds in (0.4, 0.8))
    assert states[-1]["policy"]["weights"][0] == pytest.approx(second)
    assert answer(states[-1]) == pytest.approx([(first + second) / 2, 1 - (first + second) / 2])
    visit, _ = plan(BoundedMixing(policy), groups, states[1])
    assert visit.weights == pytest.approx([first, 1 - first]) and visit.counts.tolist() == [[15, 15]]
    uniform = follow(
        replace(policy, smoothing=1.0), groups, lambda step, visit: Measurement(excess=np.array([told[step]]))
    )
    assert answer(uniform[-1]) == pytest.approx([0.5, 0.5])


def test_what_a_proxy_finds_is_trained_at_after_it() -> None:
    # two of four steps are the proxy, by scores as above: weights with log odds 0.4, then 0.8
    told = [[0.5, 0.1], [0.5, np.nan]]
    groups, policy = groups_of((9, 9), 4), DoReMi(smoothing=0.0)
    visits, state = [], begin_mixing(BoundedMixing(policy), groups, 0)
    while left(groups, state):
        visit, state = plan(BoundedMixing(policy), groups, state)
        excess = np.array([told[min(state["step"], 1)]]) if visit.signals else None
        visits.append(visit)
        state = observe(BoundedMixing(policy), groups, state, visit, Measurement(excess=excess))
    first, second = (np.exp(odds) / (1 + np.exp(odds)) for odds in (0.4, 0.8))
    share = (first + second) / 2
    assert [visit.steps for visit in visits] == [1, 1, 2] and visits[2].weights is None
    # of the 60 rows that are left 0.6443 * 60 = 38.7
    assert visits[2].counts.sum(axis=0).tolist() == [round(60 * share), round(60 * (1 - share))] == [39, 21]
    assert current_mixture(BoundedMixing(policy), groups, state) == pytest.approx([share, 1 - share])
    # before the answer is known a group's share is its weight in the loss, which has a floor as well
    _, begun = plan(BoundedMixing(policy), groups, begin_mixing(BoundedMixing(policy), groups, 0))
    after = observe(BoundedMixing(policy), groups, begun, visits[0], Measurement(excess=np.array([told[0]])))
    assert counted(BoundedMixing(policy), groups, after) == pytest.approx([first, 1 - first])
    assert counted(BoundedMixing(policy, floor=0.45), groups, after) == pytest.approx([0.55, 0.45])
    assert current_mixture(BoundedMixing(policy), groups, after) == pytest.approx([0.5, 0.5])


def test_doremi_against_itself_stays_uniform() -> None:
    losses = np.random.default_rng(0).uniform(1, 3, (30, 8))
    excess = clipped_excess(losses, losses, np.repeat([0, 1], 15), 2)
    states = follow(
        DoReMi(proxy_share=1.0), groups_of((9, 9), 50), lambda step, visit: Measurement(excess=excess[None])
    )
    assert answer(states[-1]) == pytest.approx([0.5, 0.5])


def test_the_excess_is_clipped_for_each_token() -> None:
    losses = np.array([[3.0, 1.0], [2.0, 2.0], [4.0, 0.0]])
    # against 2 everywhere: a's rows exceed by (1, -1), (0, 0): clipped mean 1/4, clipped mean of means 0
    found = clipped_excess(losses, np.full((3, 2), 2.0), np.array([0, 0, 1]), 3)
    assert found[:2] == pytest.approx([0.25, 1.0]) and np.isnan(found[2])
    # a shuffled group has the same mean but larger differences, which only the token clip sees
    rng = np.random.default_rng(0)
    noisy = clipped_excess(2 + rng.normal(0, 1, (4, 50)), np.full((4, 50), 2.0), np.zeros(4, dtype=int), 1)
    assert noisy[0] > 0.3


def test_doge_by_hand() -> None:
    # products of gradients [[4, 1], [1, 1]] with norms (2, 1): without the own terms the scores are 1 and 1,
    # so the weights stay; with them 5 and 2, divided by the mean norm 1.5: log odds grow by rate * 2 a step
    aligned, norms = np.array([[[4.0, 1.0], [1.0, 1.0]]]), np.array([[2.0, 1.0]])
    measure = lambda step, visit: Measurement(alignment=aligned, norms=norms)  # noqa: E731
    groups = groups_of((9, 9), 3)
    assert answer(follow(DoGE(proxy_share=1.0), groups, measure)[-1]) == pytest.approx([0.5, 0.5])
    state = follow(DoGE(rate=0.1, own=True, proxy_share=1.0), groups, measure)[-1]["policy"]
    assert np.log(np.divide(*state["weights"])) == pytest.approx(3 * 0.1 * 2, rel=1e-5)
    # an opposed gradient counts as 0, a huge one as 5: log odds grow by rate * 5
    opposed = lambda step, visit: Measurement(alignment=np.array([[[0, 90.0], [-9, 0]]]), norms=norms)  # noqa: E731
    state = follow(DoGE(rate=0.1, proxy_share=1.0), groups, opposed)[-1]["policy"]
    assert np.log(np.divide(*state["weights"])) == pytest.approx(3 * 0.1 * 5, rel=1e-5)


def test_doge_gives_one_group_named_twice_equal_weights() -> None:
    gradients = np.array([[1.0, 0.5], [1.0, 0.5], [0.2, -1.0]])
    measure = lambda step, visit: Measurement(  # noqa: E731
        alignment=(gradients @ gradients.T)[None], norms=np.linalg.norm(gradients, axis=1)[None]
    )
    found = answer(follow(DoGE(own=True), groups_of((9, 9, 9), 20), measure)[-1])
    assert found[0] == pytest.approx(found[1]) and found[0] > found[2]


def test_doge_hears_of_groups_that_no_batch_holds_together_with_all_others() -> None:
    # batches of 2 rows of 3 groups: each step lacks one. The first two help one another, the last helps nobody
    products = np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.1], [0.1, 0.1, 1.0]])

    def measure(step: int, visit: Visit) -> Measurement:
        seen = visit.counts > 0
        both = seen[:, :, None] & seen[:, None, :]
        return Measurement(alignment=np.where(both, products, np.nan), norms=np.where(seen, 1.0, np.nan))

    policy, groups = DoGE(rate=0.1, every=3, proxy_share=1.0), groups_of((9, 9, 9), 60, 2)
    state = follow(policy, groups, measure)[-1]["policy"]
    # once each pair was in a batch the scores are sums over the others: 1.0, 1.0 and 0.2
    assert state["scores"] == pytest.approx([1.0, 1.0, 0.2], abs=1e-5)
    odds = np.log(state["weights"] / state["weights"][2])
    assert odds[0] == pytest.approx(odds[1], abs=0.3) and 58 * 0.08 < odds[0] < 62 * 0.08
    shares = answer({"policy": state})
    assert shares[0] == pytest.approx(shares[1], abs=0.05) and shares[2] < 0.2


def test_one_absent_group_costs_doge_no_other_group_its_score() -> None:
    products = np.array([[4.0, 2.0, 9.0], [2.0, 1.0, 7.0], [9.0, 7.0, 1.0]])
    absent = products.copy()
    absent[2], absent[:, 2] = np.nan, np.nan
    groups, policy = groups_of((9, 9, 9), 2), DoGE(rate=0.1, proxy_share=1.0, own=True, most=np.inf)
    told = [absent, products]
    norms = [np.array([[2.0, 1.0, np.nan]]), np.array([[2.0, 1.0, 3.0]])]
    states = follow(
        policy, groups, lambda step, visit: Measurement(alignment=told[step][None], norms=norms[step])
    )
    # known products over a mean norm of 1.5, times 3 targets over 2: 6 and 3; the absent group takes their mean
    assert states[1]["policy"]["scores"] == pytest.approx([6.0, 3.0, 4.5], abs=1e-4)
    # then all three, over a mean norm of 2
    assert states[2]["policy"]["scores"] == pytest.approx([7.5, 5.0, 8.5], abs=1e-4)
    # absent after it was there: its products stand, the others are 4, 2 and 1 over 1.5 again
    told.append(absent)
    norms.append(norms[0])
    last = follow(
        policy,
        replace(groups, steps=3),
        lambda step, visit: Measurement(None, None, None, None, told[step][None], norms[step]),
    )
    assert last[3]["policy"]["scores"] == pytest.approx([4 + 4.5, 2 + 3.5, 8.5], abs=1e-4)


def test_doge_without_a_finite_product_stays_where_it_is() -> None:
    lost = lambda step, visit: Measurement(  # noqa: E731
        alignment=np.full((1, 2, 2), np.inf), norms=np.full((1, 2), np.nan)
    )
    assert answer(follow(DoGE(proxy_share=1.0), groups_of((9, 9), 5), lost)[-1]).tolist() == [0.5, 0.5]
    finite = lambda step, visit: Measurement(alignment=np.ones((1, 2, 2)), norms=np.full((1, 2), np.nan))  # noqa: E731
    assert answer(follow(DoGE(proxy_share=1.0), groups_of((9, 9), 5), finite)[-1]).tolist() == [0.5, 0.5]


def test_a_group_that_was_never_measured_moves_with_the_mean_of_the_others() -> None:
    groups, told = groups_of((9, 9, 9), 1), np.array([[0.2, 0.8, np.nan]])
    policy = DoReMi(smoothing=0.0, proxy_share=1.0)
    state = follow(policy, groups, lambda step, visit: Measurement(excess=told))[-1]["policy"]
    assert np.log(state["weights"] / state["weights"][2]) == pytest.approx([-0.3, 0.3, 0.0])


def test_what_follows_within_a_visit_is_what_is_learnt_of_it_as_a_whole() -> None:
    excess = np.array([[0.5, 0.1], [np.nan, 0.4], [0.3, 0.3]])
    policy, groups = DoReMi(every=3, proxy_share=1.0), groups_of((9, 9), 3)
    visit, state = plan(
        BoundedMixing(policy, floor=0.4), groups, begin_mixing(BoundedMixing(policy), groups, 0)
    )
    used, waiting = [], state
    for row in excess:
        weights, waiting = reweighed(
            BoundedMixing(policy, floor=0.4), groups, waiting, Measurement(excess=row[None])
        )
        used.append(weights)
    # the first step is trained with the weights of its own score: log odds 0.4, and the floor
    odds = np.exp(0.4) / (1 + np.exp(0.4))
    assert used[0] == pytest.approx([0.999 * odds + 5e-4, 1 - (0.999 * odds + 5e-4)])
    assert used[1] == pytest.approx([0.6, 0.4], abs=0.02) and state["part"].keys() != waiting["part"].keys()
    end = observe(BoundedMixing(policy), groups, waiting, visit, Measurement(excess=excess))["policy"]
    assert (end["weights"] == waiting["part"]["policy"]["weights"]).all() and end["updates"] == 3


CURVES = (LossCurve(2.0, 20.0, 0.3), LossCurve(2.0, 20.0, 0.3), LossCurve(2.0, 20.0, 0.3))


def lossy(curves: tuple[LossCurve, ...], batch: int) -> Callable[[int, Visit], Measurement]:
    def measure(step: int, visit: Visit) -> Measurement:
        at = (step + 0.5 + np.arange(visit.steps)[:, None]) * batch
        losses = np.hstack([curve.eps + curve.beta * at**-curve.alpha for curve in curves])
        return Measurement(training=np.where(visit.counts > 0, losses, np.nan))

    return measure


def test_ado_without_evidence_keeps_the_sizes_or_squares_them() -> None:
    groups = groups_of((70, 20, 10), 3000, 100)
    equal = lossy(CURVES, 100)
    still = follow(ADO(power=0.0, refit=500), groups, equal)[-1]["policy"]
    assert still["proportions"] == pytest.approx([0.7, 0.2, 0.1], abs=1e-3)
    # rho in proportion to size * credit ** 0.5 is at rest where credit is size ** 2
    drifting = follow(ADO(power=0.5, refit=500, fresh=1.0), groups, equal)[-1]["policy"]
    assert drifting["proportions"] == pytest.approx(normalise([0.49, 0.04, 0.01]), abs=3e-3)
    even = follow(ADO(power=0.5, refit=100, fresh=1.0), groups_of((9, 9, 9), 1000, 100), equal)[-1]["policy"]
    assert even["proportions"] == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_ado_follows_speed_and_keeps_its_floor() -> None:
    curves = (LossCurve(2.0, 40.0, 0.3), LossCurve(2.0, 20.0, 0.3), LossCurve(2.5, 1e-9, 0.3))
    groups, policy = groups_of((10, 10, 10), 2000, 100), ADO(power=0.0, fresh=1.0, refit=400, least=0.05)
    state = follow(policy, groups, lossy(curves, 100))[-1]["policy"]
    # the slopes are as 2 to 1 to 0: the plateau falls to the floor, which holds after normalisation
    assert state["proportions"] == pytest.approx([0.95 * 2 / 3, 0.95 / 3, 0.05], abs=5e-3)
    frozen = follow(replace(policy, fresh=0.0), groups, lossy(curves, 100))[-1]["policy"]
    mean = (frozen["mean"] * (frozen["mixtures"] + 1) - np.array([0.95 * 2 / 3, 0.95 / 3, 0.05])) / frozen[
        "mixtures"
    ]
    assert frozen["proportions"] == pytest.approx(mean, abs=1e-3)  # the mean before the last rho


def test_ado_by_hand() -> None:
    # known laws, sizes 1/2 and 1/2, credit 0.64 and 0.36: rho as 0.8 * 0.3 * 20 to 0.6 * 0.1 * 10 at n = 1
    policy, groups = ADO(power=0.5, fresh=1.0, recency=0.0, least=0.0), groups_of((9, 9), 100)
    state = begin_mixing(BoundedMixing(policy), groups, 0)
    known = {"curves": np.array([[2.0, 20.0, 0.3], [2.0, 10.0, 0.1]]), "credit": np.array([0.64, 0.36])}
    state["policy"] |= known | {"rows": -299.0}  # 300 rows are seen in the visit, so n is 1
    visit, state = plan(BoundedMixing(policy), groups, state)
    state = observe(BoundedMixing(policy), groups, state, visit, Measurement(training=np.ones((10, 2))))
    assert state["policy"]["proportions"] == pytest.approx(np.array([4.8, 0.6]) / 5.4)


def test_ado_uses_a_slope_that_is_believed_by_hand() -> None:
    # an alpha of 0.01 counts as 0.05 in the slope: 0.8 * 0.3 * 20 to 0.6 * 0.05 * 10 at n = 1
    policy, groups = ADO(power=0.5, fresh=1.0, recency=0.0, least=0.0), groups_of((9, 9), 100)
    state = begin_mixing(BoundedMixing(policy), groups, 0)
    known = {"curves": np.array([[2.0, 20.0, 0.3], [2.0, 10.0, 0.01]]), "credit": np.array([0.64, 0.36])}
    state["policy"] |= known | {"rows": -299.0}
    visit, state = plan(BoundedMixing(policy), groups, state)
    state = observe(BoundedMixing(policy), groups, state, visit, Measurement(training=np.ones((10, 2))))
    assert state["policy"]["proportions"] == pytest.approx(np.array([4.8, 0.3]) / 5.1)


def test_ado_takes_credit_and_a_point_of_each_step_by_hand() -> None:
    policy, groups = ADO(every=2, skip=1, least=0.0), groups_of((9, 9), 100, 4)
    losses = np.array([[7.0, 8.0], [3.0, np.nan]])
    measure = lambda step, visit: Measurement(np.array([[3, 1], [4, 0]]), training=losses - step / 2)  # noqa: E731
    first, second = (state["policy"] for state in follow(policy, groups, measure)[1:3])
    # 0.9 * 0.5 + 0.1 * 3/4 = 0.525, then 0.9 * 0.525 + 0.1 = 0.5725
    assert first["credit"] == pytest.approx([0.5725, 0.4275])
    # the second step's four rows have their middle at 6; the first is skipped, also to fill in from
    assert first["at"].tolist() == [6.0] and first["losses"][0].tolist() == [3.0]
    assert np.isnan(first["losses"][1]).all()
    assert second["at"].tolist() == [6.0, 10.0, 14.0]
    assert second["losses"][0].tolist() == [3.0, 6.0, 2.0]
    assert second["losses"][1].tolist()[1:] == [7.0, 7.0]  # absent in the last step: as it was


def test_ado_defaults_move_within_a_run_of_the_default_length() -> None:
    curves = (LossCurve(2.0, 40.0, 0.3), LossCurve(2.0, 10.0, 0.3))
    groups = groups_of((9, 9), 200)
    states = follow(ADO(), groups, lossy(curves, 30))
    moved = [state["step"] for state in states if state["policy"]["proportions"][0] > 0.5 + 1e-9]
    # 30 steps after the 50 that are skipped, and from then on
    assert moved[0] == 80 and states[-1]["policy"]["proportions"][0] > 0.55
    for policy, first, steps in ((ADO(), 80, 80), (ADO(every=25), 100, 90), (ADO(skip=200), 230, 200)):
        with pytest.raises(ValueError, match=f"moves first after step {first}, .* but the run has {steps}:"):
            begin_mixing(BoundedMixing(policy), replace(groups, steps=steps), 0)
    begin_mixing(BoundedMixing(ADO()), replace(groups, steps=81), 0)


def test_ado_fits_no_law_to_few_points_and_fills_in_absent_groups() -> None:
    groups, policy = groups_of((98, 1, 1), 290, 4), ADO(every=10, refit=10, skip=0, least=0.0)
    states = follow(policy, groups, lossy(CURVES, 4))
    by_step = {state["step"]: state["policy"] for state in states}
    assert np.isnan(by_step[20]["curves"]).all() and len(by_step[20]["at"]) == 20
    assert np.isfinite(by_step[30]["curves"][0]).all()
    assert np.isfinite(states[-1]["policy"]["losses"][:, -200:]).all()  # once seen, it has a point a step
    assert np.isfinite(states[-1]["policy"]["curves"]).all()


def test_ado_merges_old_points_in_pairs() -> None:
    curves, groups = CURVES, groups_of((9, 9, 9), 1500, 4)
    found = [follow(ADO(every=every, skip=0), groups, lossy(curves, 4))[-1]["policy"] for every in (1, 100)]
    for history in found:
        assert 300 <= history["losses"].shape[1] < 600 and (np.diff(history["at"]) > 0).all()
    # at steps 600, 900, 1200 and 1500 there are 600 points, which become 300: the oldest are means of 16 steps
    known = curves[0].eps + curves[0].beta * (2 + 4 * np.arange(16.0)) ** -curves[0].alpha
    for history in found:
        assert history["at"][0] == 32.0 and history["losses"][0, 0] == pytest.approx(known.mean(), rel=1e-6)


def test_a_group_that_is_never_seen_keeps_its_share_and_the_others_move() -> None:
    curves, groups = (LossCurve(2.0, 40.0, 0.3), LossCurve(2.0, 20.0, 0.3)), groups_of((40, 40, 20), 300, 100)
    policy = ADO(power=0.0, fresh=1.0)

    def measure(step: int, visit: Visit) -> Measurement:
        training = lossy((*curves, curves[0]), 100)(step, visit).training
        assert training is not None
        training[:, 2] = np.nan
        return Measurement(training=training)

    shares = follow(policy, groups, measure)[-1]["policy"]["proportions"]
    # the slopes are as 2 to 1, of what the two have
    assert shares == pytest.approx([0.8 * 2 / 3, 0.8 / 3, 0.2], abs=0.02)


def test_ado_begins_and_stays_at_a_prior_without_evidence() -> None:
    groups, mixing = groups_of((90, 10), 400, 100), BoundedMixing(ADO(power=0.0, fresh=1.0))
    state = begin_mixing(mixing, groups, 0, prior=np.array([0.25, 0.75]))
    while left(groups, state):
        visit, state = plan(mixing, groups, state)
        state = observe(mixing, groups, state, visit, lossy(CURVES[:2], 100)(state["step"], visit))
    assert state["policy"]["mixtures"] > 9
    assert state["policy"]["proportions"] == pytest.approx([0.25, 0.75], abs=1e-3)


def quadratics(rng: np.random.Generator) -> tuple[Vector, Callable[[Vector], Vector]]:
    """Return the gradients at 0 of three losses 1/2 h (x - c)^2 in 4 weights, and the losses at a place."""
    centres, hessians = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, (3, 4))
    return -hessians * centres, lambda at: 0.5 * (hessians * (at - centres) ** 2).sum(axis=1)


def test_aioli_and_doge_agree_on_short_steps() -> None:
    rate, smoothed = 1e-4, 1e4
    gradients, losses_at = quadratics(np.random.default_rng(1))
    at = np.zeros(4)
    drops = [
        tuple(np.array([fell]) for fell in losses_at(at) - losses_at(at - rate * gradient))
        for gradient in gradients
    ]
    effects = learn_effects(np.eye(3), drops, 1, np.ones(3), 1)
    assert effects is not None
    gram = gradients @ gradients.T
    doge = DoGE(rate=rate * smoothed, own=True, by_norm=False, least=-np.inf, most=np.inf, proxy_share=1.0)
    groups = groups_of((9, 9, 9), 1)
    state = follow(doge, groups, lambda step, visit: Measurement(alignment=gram[None]))[-1]["policy"]
    aioli = exponentiated(np.full(3, 1 / 3), effects.pull, smoothed)
    assert aioli == pytest.approx(state["weights"], abs=1e-3) and np.ptp(aioli) > 0.1


def test_skill_it_with_an_identity_is_doremi_without_a_reference() -> None:
    rng, told = np.random.default_rng(2), []
    identity = tuple(map(tuple, np.eye(3).tolist()))

    def measure(step: int, visit: Visit) -> Measurement:
        told.append(rng.uniform(1, 3, 3))
        return validation(*told[-1])

    groups = groups_of((9, 9, 9), 50)
    skill_it = follow(SkillIt(identity, rate=0.3, every=10, window=99), groups, measure)[-1]["policy"]
    doremi = DoReMi(rate=0.3, every=1, smoothing=0.0, proxy_share=1.0)
    excess = [clipped_excess(losses[:, None], np.zeros((3, 1)), np.arange(3), 3) for losses in told[:4]]
    other = follow(doremi, groups_of((9, 9, 9), 4), lambda step, visit: Measurement(excess=excess[step][None]))
    # the first mixture of Skill-It is uniform here as well, since all rows of an identity sum to 1
    assert skill_it["proportions"] == pytest.approx(other[-1]["policy"]["weights"])


def test_aioli_with_a_rate_of_0_is_stratified() -> None:
    rng = np.random.default_rng(3)
    groups = groups_of((90, 9, 1), 600)
    for update in ("cumulative", "from_uniform_ema"):
        policy = Aioli(0.0, every=100, probe_share=0.3, sweeps=2, noise=0, update=update)
        states = follow(policy, groups, lambda step, visit: validation(*rng.uniform(1, 3, 3)))
        assert current_mixture(BoundedMixing(policy), groups, states[-2]) == pytest.approx([1 / 3] * 3)


def test_one_round_of_whole_length_probes_is_a_skills_graph_before_its_division() -> None:
    # separate runs of 10 steps on one group each: A times the steps is what a graph divides by the losses
    before, after = np.array([4.0, 5.0]), np.array([[3.0, 4.5], [3.8, 2.0]])  # (groups trained, targets)
    drops = [tuple(np.array([value]) for value in before - row) for row in after]
    effects = learn_effects(np.eye(2), drops, 10, np.ones(2), 1)
    assert effects is not None
    assert 10 * effects.matrix.T / before == pytest.approx(np.array(skills_graph(before, after)))


def test_settings_that_do_not_fit_the_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a row for each of \('a', 'b', 'c'\)"):
        begin_mixing(BoundedMixing(SkillIt(GRAPH)), groups_of((1, 1, 1), 10), 0)
    with pytest.raises(ValueError, match="a finite number for each group"):
        SkillIt(((1.0,), (1.0, 2.0)))
    with pytest.raises(ValueError, match=r"every must be less than the run's 10 steps, .* but got 10"):
        begin_mixing(BoundedMixing(SkillIt(GRAPH, every=10)), groups_of((1, 1), 10), 0)
    with pytest.raises(ValueError, match="losses of before must be above 0"):
        skills_graph(np.array([1.0, 0.0]), np.ones((2, 2)))
    with pytest.raises(ValueError, match="1 steps of 2 rows are fewer"):
        begin_mixing(BoundedMixing(DoReMi()), groups_of((1, 1, 1), 10, 2), 0)
    with pytest.raises(ValueError, match=r"0\.01 of 40 steps is 0\.4: give a larger share or more steps"):
        begin_mixing(BoundedMixing(DoGE(proxy_share=0.01)), groups_of((1, 1, 1), 40), 0)
    # two batches of 2 rows are always groups 0 and 1, then 2 and 3
    with pytest.raises(ValueError, match="each pair of 4 groups must come together in some batch"):
        begin_mixing(BoundedMixing(DoGE(every=2)), groups_of((1, 1, 1, 1), 400, 2), 0)
    assert begin_mixing(BoundedMixing(DoGE(every=4)), groups_of((1, 1, 1, 1), 400, 3), 0)
    assert begin_mixing(BoundedMixing(DoReMi(every=2)), groups_of((1, 1, 1, 1), 400, 2), 0)
    with pytest.raises(ValueError, match="least must be at most 1/3"):
        begin_mixing(BoundedMixing(ADO(least=0.5)), groups_of((1, 1, 1), 10), 0)


@pytest.mark.parametrize(
    "policy", [ADO(refit=100, fresh=1.0), DoReMi(), DoGE(own=True), SkillIt(((0.0,) * 3,) * 3)]
)
def test_groups_in_another_order_have_the_same_proportions(policy: Any) -> None:
    turned = np.array([2, 0, 1])
    curves = np.array([(2.0, 20.0, 0.3), (1.0, 30.0, 0.2), (3.0, 5.0, 0.4)])
    losses, graph = np.array([2.0, 1.0, 3.0]), np.array([[0.5, 0.1, 0.0], [0.2, 0.4, 0.1], [0.0, 0.3, 0.3]])
    aligned = np.array([[4.0, 1.0, 0.5], [1.0, 2.0, 0.0], [0.5, 0.0, 1.0]])

    def found(order: Any) -> Vector:
        def measure(step: int, visit: Visit) -> Measurement:
            training = lossy(tuple(LossCurve(*curves[group]) for group in order), 300)(step, visit).training
            shape = visit.steps, 1
            return Measurement(
                training=training,
                validation=tuple(np.array([loss]) for loss in losses[order]),
                excess=np.tile(losses[order] / 10, shape),
                alignment=np.tile(aligned[np.ix_(order, order)], (*shape, 1)),
                norms=np.tile(np.sqrt(np.diag(aligned))[order], shape),
            )

        told = policy
        if isinstance(policy, SkillIt):
            told = replace(policy, graph=tuple(map(tuple, graph[np.ix_(order, order)].tolist())))
        groups = groups_of(tuple(np.array([50, 30, 20])[order].tolist()), 400, 300)
        state = follow(told, groups, measure)[-1]
        return answer(state) if "sum" in state["policy"] else np.array(state["policy"]["proportions"])

    straight = found(np.arange(3))
    assert found(turned) == pytest.approx(straight[turned], abs=2e-3) and np.ptp(straight) > 0.01
