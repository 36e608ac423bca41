"""The contract of all mixing policies, and the plain ones by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shoal.cluster import nests
from shoal.policies.mixers.ado import ADO
from shoal.policies.mixers.aioli import Aioli
from shoal.policies.mixers.doge import DoGE
from shoal.policies.mixers.doremi import DoReMi
from shoal.policies.mixers.mixer import (
    ALIGNMENT,
    EXCESS,
    TRAINING,
    VALIDATION,
    Groups,
    Measurement,
    MixerState,
    Visit,
)
from shoal.policies.mixers.plain import (
    EndUpsampling,
    Fixed,
    Proportional,
    Random,
    Stages,
    Stratified,
    Temperature,
)
from shoal.policies.mixers.rules import MIXERS
from shoal.policies.mixers.skillit import SkillIt
from shoal.policies.mixers.visits import BoundedMixing, begin_mixing, current_mixture, join, left, observe, plan

THREE = Groups(("code", "docs", "law"), (4000, 2000, 1000), 16, 200)

EXAMPLES: dict[str, Any] = {
    "fixed": Fixed((0.5, 0.3, 0.2)),
    "stratified": Stratified(),
    "proportional": Proportional(),
    "temperature": Temperature(),
    "random": Random(),
    "stages": Stages(((0, (1.0, 0.0, 0.0)), (50, (0.0, 0.5, 0.5)))),
    "end_upsampling": EndUpsampling((0.2, 0.2, 0.6)),
    "aioli": Aioli(every=60, probe_share=0.3, sweeps=2, noise=0.0, rate=0.5),
    "ado": ADO(every=1, refit=60, skip=5),
    "skill_it": SkillIt(((0.5, 0.1, 0.0), (0.2, 0.4, 0.1), (0.0, 0.3, 0.3)), every=30),
    "doremi": DoReMi(),
    "doge": DoGE(),
}
# settings that name groups have to name the one that joins too
LATER: dict[str, Any] = {
    "fixed": Fixed((0.4, 0.3, 0.2, 0.1)),
    "stages": Stages(((0, (1.0, 0.0, 0.0, 0.0)), (50, (0.0, 0.5, 0.3, 0.2)))),
    "end_upsampling": EndUpsampling((0.2, 0.2, 0.5, 0.1)),
    "skill_it": SkillIt(((0.5, 0.1, 0.0, 0.1),) * 4, every=30),
}


def measurement_of(visit: Visit, groups: Groups, rng: np.random.Generator) -> Measurement:
    """Return random measurements of everything that a visit asks for."""
    shape = visit.steps, groups.count
    positive = lambda *size: rng.uniform(0.5, 3.0, size)  # noqa: E731
    seen = np.where(visit.counts > 0, 1.0, np.nan).reshape(shape)
    return Measurement(
        training=positive(*shape) * seen if TRAINING in visit.signals else None,
        validation=tuple(positive(12) for _ in groups.targets) if VALIDATION in visit.signals else None,
        excess=positive(*shape) * seen if EXCESS in visit.signals else None,
        alignment=rng.standard_normal((*shape, len(groups.targets))) if ALIGNMENT in visit.signals else None,
        norms=positive(*shape) if ALIGNMENT in visit.signals else None,
    )


def run(
    mixing: BoundedMixing, groups: Groups, seed: int, limit: int | None = None
) -> tuple[list[Visit], list[MixerState]]:
    state = begin_mixing(mixing, groups, seed)
    visits, states, rng = [], [state], np.random.default_rng(seed)
    while left(groups, state):
        visit, waiting = plan(mixing, groups, state, limit)
        again, _ = plan(mixing, groups, waiting, limit)
        assert visit.name == again.name and (visit.counts == again.counts).all()
        state = observe(mixing, groups, waiting, visit, measurement_of(visit, groups, rng))
        visits.append(visit)
        states.append(state)
    return visits, states


@pytest.mark.parametrize("name", MIXERS)
def test_every_policy_trains_exactly_the_budget_in_whole_batches(name: str) -> None:
    for limit in (None, 7):
        visits, states = run(BoundedMixing(EXAMPLES[name]), THREE, 1, limit)
        assert sum(visit.steps for visit in visits) == 200
        for visit in visits:
            assert visit.counts.shape == (visit.steps, 3) and (visit.counts >= 0).all()
            assert (visit.counts.sum(axis=1) == 16).all()
        assert states[-1]["seen"].tolist() == sum(visit.counts.sum(axis=0) for visit in visits).tolist()
        assert states[-1]["evaluations"] == sum(VALIDATION in visit.signals for visit in visits)


@pytest.mark.parametrize("name", MIXERS)
def test_states_survive_a_checkpoint_and_are_never_changed(name: str) -> None:
    mixing, rng = BoundedMixing(EXAMPLES[name], floor=0.05), np.random.default_rng(3)
    state = begin_mixing(mixing, THREE, 3)
    for _ in range(40):
        if not left(THREE, state):
            break
        before = nests.dumps(state)
        visit, waiting = plan(mixing, THREE, state, 9)
        heard = measurement_of(visit, THREE, rng)
        after = observe(mixing, THREE, waiting, visit, heard)
        assert nests.dumps(state) == before
        restored = nests.loads(before)
        _, waiting = plan(mixing, THREE, restored, 9)
        assert nests.dumps(observe(mixing, THREE, waiting, visit, heard)) == nests.dumps(after)
        state = after


@pytest.mark.parametrize("name", sorted(set(MIXERS)))
@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_leaves_a_mixture(name: str, spoilt: float) -> None:
    mixing, rng = BoundedMixing(EXAMPLES[name]), np.random.default_rng(4)
    state = begin_mixing(mixing, THREE, 4)
    while left(THREE, state):
        visit, state = plan(mixing, THREE, state, 20)
        heard = measurement_of(visit, THREE, rng)
        for values in (heard.training, heard.excess, heard.alignment, heard.norms, *(heard.validation or ())):
            if values is not None and rng.random() < 0.3:
                values[...] = spoilt
        state = observe(mixing, THREE, state, visit, heard)
        shares = current_mixture(mixing, THREE, state)  # also after the last step
        assert np.isfinite(shares).all() and shares.sum() == pytest.approx(1) and (shares >= 0).all()


@pytest.mark.parametrize("name", MIXERS)
def test_no_group_is_repeated_more_often_than_is_allowed(name: str) -> None:
    # 3200 rows are trained, and the last group may give 2 * 100, the second 2 * 900
    groups = Groups(("code", "docs", "law"), (4000, 900, 100), 16, 200)
    _, states = run(BoundedMixing(EXAMPLES[name], epochs=2.0), groups, 5, 13)
    assert (states[-1]["seen"] <= [8000, 1800, 200]).all() and states[-1]["seen"].sum() == 3200


def test_what_may_still_be_repeated_is_spread_over_the_rest_of_the_run() -> None:
    # of 1000 rows to train one group may give 100: a tenth of each quarter, since what was seen is counted
    half = (0.5, 0.5)
    policy = Stages(((0, half), (25, half), (50, half), (75, half)))
    visits, states = run(BoundedMixing(policy, epochs=1.0), Groups(("few", "many"), (100, 2000), 10, 100), 0)
    assert [visit.counts.sum(axis=0).tolist() for visit in visits] == [[25, 225]] * 4
    assert states[-1]["seen"].tolist() == [100, 900]


def test_a_probe_neither_pays_nor_leaves_a_debt() -> None:
    groups, mixing = (
        Groups(("a", "b"), (900, 900), 8, 100),
        BoundedMixing(Aioli(every=50, probe_share=0.2, noise=0.0)),
    )
    measuring, state = plan(mixing, groups, begin_mixing(mixing, groups, 0))
    state = observe(mixing, groups, state, measuring, Measurement(validation=(np.ones(2), np.ones(2))))
    owing = state | {"debt": np.array([2.5, -2.5])}
    (even, _), (probe, after) = plan(mixing, groups, state), plan(mixing, groups, owing)
    # a step of 8 rows at 3/4 and 1/4
    assert probe.name.startswith("probe") and sorted(probe.counts[0].tolist()) == [2, 6]
    assert (probe.counts == even.counts).all()
    heard = Measurement(validation=(np.ones(2), np.ones(2)))
    assert observe(mixing, groups, after, probe, heard)["debt"].tolist() == [2.5, -2.5]


@pytest.mark.parametrize("name", MIXERS)
def test_the_floor_holds_for_every_visit_but_probes(name: str) -> None:
    groups = Groups(("code", "docs", "law"), (4000, 2000, 1000), 100, 200)
    visits, _ = run(BoundedMixing(EXAMPLES[name], floor=0.2), groups, 6, 20)
    for visit in visits:
        if visit.steps and not visit.name.startswith("probe"):
            assert (visit.counts.mean(axis=0) >= 20 - 3 / visit.steps).all(), visit.name


@pytest.mark.parametrize("name", MIXERS)
def test_a_group_joins_in_the_middle(name: str) -> None:
    four = Groups((*THREE.names, "mail"), (*THREE.rows, 1000), 16, 200)
    mixing, rng = BoundedMixing(EXAMPLES[name]), np.random.default_rng(7)
    state = begin_mixing(mixing, THREE, 7)
    while state["step"] < 90:
        visit, state = plan(mixing, THREE, state, 9)
        state = observe(mixing, THREE, state, visit, measurement_of(visit, THREE, rng))
    before = current_mixture(mixing, THREE, state)
    state = join(BoundedMixing(LATER.get(name, EXAMPLES[name])), state, THREE, four)
    mixing = BoundedMixing(LATER.get(name, EXAMPLES[name]))
    if "base" in state["policy"]:  # it learns: the old ratios hold, and the new group gets an equal share
        assert current_mixture(mixing, four, state) == pytest.approx(np.append(0.75 * before, 0.25), abs=1e-3)
    seen = state["seen"]
    while left(four, state):
        visit, state = plan(mixing, four, state, 9)
        state = observe(mixing, four, state, visit, measurement_of(visit, four, rng))
    assert state["seen"][3] > 0 and state["seen"].sum() == 3200 and (state["seen"] >= seen).all()


def test_plain_mixtures_by_hand() -> None:
    # rows 4000, 2000, 1000; at temperature 2 their roots 63.2, 44.7, 31.6 of 139.6
    wanted = {
        "stratified": [1 / 3, 1 / 3, 1 / 3],
        "proportional": [4 / 7, 2 / 7, 1 / 7],
        "temperature": [0.45309, 0.32038, 0.22654],
        "fixed": [0.5, 0.3, 0.2],
    }
    for name, shares in wanted.items():
        mixing = BoundedMixing(EXAMPLES[name])
        assert current_mixture(mixing, THREE, begin_mixing(mixing, THREE, 0)) == pytest.approx(
            shares, abs=1e-5
        ), name
    drawn = [
        current_mixture(BoundedMixing(Random()), THREE, begin_mixing(BoundedMixing(Random()), THREE, seed))
        for seed in (1, 1, 2)
    ]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).all()


def test_stages_turn_exactly_at_their_step() -> None:
    visits, _ = run(BoundedMixing(EXAMPLES["stages"]), THREE, 0)
    assert [visit.steps for visit in visits] == [50, 150]
    assert visits[0].counts.sum(axis=0).tolist() == [800, 0, 0]
    assert visits[1].counts.sum(axis=0).tolist() == [0, 1200, 1200]


@pytest.mark.parametrize(("share", "turn"), [(0.0, 200), (0.2, 160), (1.0, 0)])
def test_the_end_is_upsampled_from_its_step_on(share: float, turn: int) -> None:
    policy = EndUpsampling((0.0, 0.25, 0.75), share, (0.5, 0.5, 0.0))
    for limit in (None, 7):  # also when the boundary falls into a cut visit, or the run is resumed there
        visits, states = run(BoundedMixing(policy), THREE, 0, limit)
        counts = np.concatenate([visit.counts for visit in visits])
        assert counts[:turn].sum(axis=0).tolist() == [8 * turn, 8 * turn, 0]
        rest = 16 * (200 - turn)
        assert counts[turn:].sum(axis=0).tolist() == [0, rest // 4, 3 * rest // 4]
        assert states[-1]["seen"].tolist() == counts.sum(axis=0).tolist()  # over both phases


def test_what_is_left_out_of_the_end_gives_its_share_to_the_others() -> None:
    policy = EndUpsampling((0.2, 0.2, 0.6), 0.5, (0.5, 0.5, 0.0), without="law")
    visits, _ = run(BoundedMixing(policy), THREE, 0)
    assert visits[-1].counts.sum(axis=0).tolist() == [800, 800, 0]
    visits, _ = run(BoundedMixing(replace(policy, final=(0.1, 0.3, 0.6))), THREE, 0)
    assert visits[-1].counts.sum(axis=0).tolist() == [400, 1200, 0]


def test_a_batch_may_be_smaller_than_the_number_of_groups() -> None:
    groups = Groups(tuple("abcdef"), (100,) * 6, 4, 60)
    visits, states = run(BoundedMixing(Stratified()), groups, 0, 10)
    assert states[-1]["seen"].tolist() == [40] * 6
    assert all((visit.counts.sum(axis=1) == 4).all() for visit in visits)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Fixed((0.5, 0.4)), r"proportions must sum to 1, but \[0\.5, 0\.4\] sum to 0\.9"),
        (lambda: Fixed((1.2, -0.2)), "at least 0"),
        (lambda: Stages(((5, (1.0,)),)), "begin at step 0"),
        (lambda: Temperature(0.0), "temperature must be above 0"),
        (lambda: EndUpsampling((1.0,), 1.5), r"share must be in \[0, 1\]"),
        (
            lambda: begin_mixing(BoundedMixing(EndUpsampling((0, 0, 1.0), without="mail")), THREE, 0),
            "without must be one of",
        ),
        (
            lambda: begin_mixing(BoundedMixing(EndUpsampling((0, 0, 1.0), without="law")), THREE, 0),
            "have another group than",
        ),
        (
            lambda: begin_mixing(BoundedMixing(EndUpsampling((0, 0, 1.0), 0.002)), THREE, 0),
            r"0\.002 of 200 steps is 0\.4",
        ),
        (
            lambda: begin_mixing(BoundedMixing(Stages(((0, (1.0, 0, 0)), (200, (0, 1.0, 0))))), THREE, 0),
            "within the run's 200 steps, but one does at 200",
        ),
        (lambda: begin_mixing(BoundedMixing(Fixed((0.5, 0.5))), THREE, 0), "for 3 groups, .*but got 2"),
        (lambda: begin_mixing(BoundedMixing(Proportional(), floor=0.4), THREE, 0), "floor must be at most 1/3"),
        (
            lambda: begin_mixing(BoundedMixing(Proportional(), epochs=0.4), THREE, 0),
            "2800 rows, but 200 steps of 16 need 3200",
        ),
        (lambda: Groups(("a", "a"), (1, 1), 4, 4), "different names"),
        (lambda: Groups(("a", "b"), (1, 0), 4, 4), "must have a training row"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_trains(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_a_measurement_must_have_what_was_asked_for() -> None:
    mixing = BoundedMixing(EXAMPLES["aioli"])
    visit, state = plan(mixing, THREE, begin_mixing(mixing, THREE, 0))
    with pytest.raises(ValueError, match="the visit measure asked for validation"):
        observe(mixing, THREE, state, visit, Measurement())
    with pytest.raises(ValueError, match="losses of 3 targets"):
        observe(mixing, THREE, state, visit, Measurement(validation=(np.ones(2),)))
    with pytest.raises(ValueError, match=r"\['law'\] have none"):
        observe(mixing, THREE, state, visit, Measurement(validation=(np.ones(2), np.ones(1), np.ones(0))))
