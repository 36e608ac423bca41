"""Populations that begin with the best member of another, without Ray: written as a run writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.checks.run import problems
from shoal.search.config.run import Run
from shoal.search.config.stage_runs import stage_runs
from shoal.search.driver.population import conductor_at, go_back
from shoal.search.errors import InputError
from shoal.search.load import run_of
from shoal.search.members.build import build_members
from shoal.search.messages import Message
from shoal.search.records import directory
from shoal.search.records.beginning import begun_with
from shoal.search.records.last import member_of
from shoal.search.records.lineage import ancestry, read_lineage
from shoal.search.runs.dry import first_files, try_out
from shoal.search.runs.population import prepare_run
from shoal.search.runs.replay import as_one_model
from shoal.search.worker import brood
from shoal.search.worker.teams import Team
from shoal.trainables.handover import hand_in
from tests.helpers.directories import Told
from tests.helpers.members import equal
from tests.helpers.runs import write_texts

CYCLE: dict[str, Any] = {
    "name": "cycle",
    "kind": "stages",
    "data": {"sequence_length": 16, "validation": 0.2, "test": 0.2},
    "model": {"layers": 2, "heads": 2, "width": 16},
    "training": {"steps": 12, "batch": 4, "warmup": 2, "evaluation_rows": 4},
    "hyperparameters": {"learning_rate": {"kind": "float", "low": 1e-3, "high": 1e-1, "log": True}},
    "population": {"members": 2, "interval": 4, "exploit": {"kind": "truncation", "fraction": 0.5}},
    "cluster": {"broods": 1, "workers_per_brood": 1, "threads_per_worker": 1, "stack": False},
    "stages": [
        {"name": "first"},
        {"name": "small", "change": {"model": {"layers": 1, "heads": 1, "width": 8}}},
        {"name": "last", "change": {"training.steps": 16}, "mix": "first", "share": 0.5},
    ],
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts"))


def cycle(texts: Path, place: Path, **changes: Any) -> Run:
    groups = {"letters": f"{texts}/letters", "digits": f"{texts}/digits"}
    data = CYCLE["data"] | {"groups": groups, "corpus": f"{texts}/corpus"}
    return run_of(CYCLE | {"data": data, "directory": str(place)} | changes, "run.yaml", str(texts))


def made(run: Run, hyperparameters: dict[int, Any]) -> dict[int, Any]:
    """Make members as a worker does."""
    return build_members(run, hyperparameters, streams=first_files, begun=begun_with(run))


def trained(run: Run, until: int | None = None) -> Run:
    """Train a population, or go on with it, up to a round as its one worker would."""
    run = prepare_run(run, Console(quiet=True))
    store = Store(run.directory) if directory.holds_run(run.directory) else directory.create(run)
    given: dict[int, Any] = {}
    conductor = conductor_at(go_back(run, store, Told()), run, store, given.__setitem__, Told())
    members = made(run, {number: known.hyperparameters for number, known in enumerate(conductor.state)})
    if conductor.round:
        for number, member in members.items():
            state = checkpoints.load_member(store, conductor.round, number)
            hand_in(member.load, state, conductor.state[number].hyperparameters)
    teams = [Team({number: member}) for number, member in members.items()]
    for round_ in range(conductor.round + 1, (until or run.rounds) + 1):
        rows = brood.train_teams(teams, run.population.interval, {})
        step = round_ * run.population.interval
        conductor.receive(Message([row._replace(round=round_, step=step) for row in rows]))
        brood.follow(None, round_, given[round_].orders, teams)
        for number, member in members.items():
            checkpoints.save_member(store, round_, number, member.state())
    conductor.wait()
    status = "done" if until is None else "interrupted"
    store.write_json(directory.SUMMARY, {"status": status, "threads": 1, "best_score": 0.0})
    return run


def weights(run: Run, member: int | None = None) -> dict[str, np.ndarray]:
    store = Store(run.directory)
    return directory.whole_weights(run, store, member_of(run, store, member))


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def three(texts, tmp_path_factory) -> list[Run]:
    """The three trained stages of a cycle."""
    return [trained(stage) for stage in stage_runs(cycle(texts, tmp_path_factory.mktemp("cycle")))]


def test_each_stage_begins_with_the_best_of_the_one_before_by_the_recorded_map(three) -> None:
    told = [json.loads(read_lineage(Store(run.directory))[0].origin or "{}") for run in three]
    assert told[0] == {}
    assert told[1]["map"] == "shrunk: width by 2, layers by 2 (zero), fresh slots"
    assert told[2]["map"] == "grown: width by 2, layers by 2 (zero), mixed with 0.5 of cycle-first, fresh slots"
    assert told[2]["mixed"] == told[1]["weights"] and told[2]["run"] == "cycle-small"
    assert [(each["step"], type(each["member"])) for each in told[1:]] == [(12, int), (12, int)]
    # half of the first stage's weights, half of the grown ones
    own, grown = weights(three[0]), weights(three[1])
    found = begun_with(three[2]).weights
    gain = 0.5 * own["norm.weight"] + 0.5 * np.tile(grown["norm.weight"], 2) / 2
    assert np.allclose(found["norm.weight"], gain, atol=1e-7)


def test_a_stage_that_is_stopped_goes_on_bit_for_bit(three, tmp_path) -> None:
    last = three[2].model_copy(update={"directory": str(tmp_path / "last")})
    trained(last, until=2)
    trained(last)
    copies = [event for event in read_lineage(Store(last.directory)) if event.event == "copy"]
    assert copies, "a member has copied"
    assert all(same(weights(last, member), weights(three[2], member)) for member in (0, 1))


def test_a_replay_follows_the_map(three) -> None:
    run, store = three[2], Store(three[2].directory)
    row = member_of(run, store, None)
    path = ancestry(read_lineage(store), row.member, round=row.round)
    again = trained(as_one_model(run, store, row.member, path))
    assert same(weights(run), weights(again, 0))


def test_searched_priors_and_splits_are_copied_resumed_and_replayed(texts, tmp_path) -> None:
    searched = {
        "prior": {"kind": "float", "low": 0.01, "high": 1.0, "log": True},
        "sampling": {"certain": {"kind": "float", "low": 0.5, "high": 0.99}},
    }
    training = CYCLE["training"] | {"steps": 40, "prior_shape": 1.0, "batch": 32}
    given = {"kind": "population", "stages": [], "price": 0.1, "sampling": {"rule": "small_loss"}}
    runs = [
        cycle(texts, tmp_path / name, hyperparameters=searched, training=training, **given)
        for name in ("whole", "stopped")
    ]
    for run, until in zip(runs, (None, 4), strict=True):
        trained(run, until)
    trained(runs[1])
    assert all(same(weights(runs[0], member), weights(runs[1], member)) for member in (0, 1))
    store = Store(runs[0].directory)
    assert any(event.event == "copy" for event in read_lineage(store))
    row = member_of(runs[0], store, None)
    path = ancestry(read_lineage(store), row.member, round=row.round)
    again = trained(as_one_model(runs[0], store, row.member, path))
    assert same(weights(runs[0]), weights(again, 0))


def test_a_pure_growth_keeps_the_loss_and_the_slots(three, texts, tmp_path) -> None:
    stage = three[2]
    given = stage.begin.model_copy(update={"mix": ""})
    run = prepare_run(
        stage.model_copy(update={"begin": given, "directory": str(tmp_path)}), Console(quiet=True)
    )
    begun = begun_with(run)
    assert begun.origin["map"] == "grown: width by 2, layers by 2 (zero), 3 slots kept" and begun.batches
    small = made(three[1], {0: {"learning_rate": 0.01}})[0]
    hand_in(small.load, state_of(three[1]), {"learning_rate": 0.01})
    large = made(run, {0: {"learning_rate": 0.01}})[0]
    assert large.evaluate()[0] == pytest.approx(small.evaluate()[0], abs=1e-6)
    # the rows go on where the small one stood, and the schedule of the rate begins anew
    assert equal(large.batches.state(), small.batches.state()) and large.trained == 0
    slots = large.state()["optimiser"]
    moved = {
        name
        for place, name in enumerate(large.weights())
        if np.any(slots[str(place)]["exp_avg"]) and float(slots[str(place)]["step"]) == 12
    }
    # a new layer begins with slots of zeros
    assert moved == {name for name in large.weights() if not name.startswith("blocks.1.")}


def state_of(run: Run) -> Any:
    store = Store(run.directory)
    row = member_of(run, store, None)
    return checkpoints.load_member(store, row.round, row.member)


def test_a_plain_second_stage_may_draw_parts_anew(three, tmp_path) -> None:
    begin = {"run": three[0].directory, "fresh": ["embedding.*"], "noise": 0.1}
    run = three[0].model_copy(
        update={"directory": str(tmp_path), "begin": Run.model_validate({"name": "x", "begin": begin}).begin}
    )
    found = made(run, {number: {"learning_rate": 0.01} for number in (0, 1)})
    first, second = (found[number].state()["weights"] for number in (0, 1))
    own = weights(three[0])
    assert same({"norm.weight": own["norm.weight"]}, first) and same(
        {"norm.weight": own["norm.weight"]}, second
    )
    # each member's own: what is fresh, and the noise
    assert not np.array_equal(first["embedding.weight"], own["embedding.weight"])
    assert not np.array_equal(first["embedding.weight"], second["embedding.weight"])
    rise = "blocks.0.rise.weight"
    apart = [float((each[rise] - own[rise]).std() / own[rise].std()) for each in (first, second)]
    assert apart == pytest.approx([0.1, 0.1], rel=0.2) and not np.array_equal(first[rise], second[rise])
    with pytest.raises(InputError, match=r"begin\.fresh: must name weights .* none fits head"):
        wrong = run.begin.model_copy(update={"fresh": ["head"]})
        made(run.model_copy(update={"begin": wrong}), {0: {"learning_rate": 0.01}})


def beginning(like: Run, place: Path, **begin: Any) -> Run:
    """Return a run of the same members that begins so."""
    given = Run.model_validate({"name": "x", "begin": begin}).begin
    return like.model_copy(update={"directory": str(place), "begin": given})


def test_an_export_begins_a_run_too_and_parts_of_it_are_frozen_or_drawn_anew(three, tmp_path) -> None:
    target = Store(str(tmp_path / "best"))
    directory.export_member(three[0], Store(three[0].directory), to=target)
    parts = {"fresh": ["blocks.1.*"], "freeze": ["embedding.*", "blocks.0.*"]}
    run = beginning(three[0], tmp_path / "run", run=target.uri, **parts)
    found, own = made(run, {number: {"learning_rate": 0.01} for number in (0, 1)}), weights(three[0])
    kept = [name for name in own if not name.startswith("blocks.1.")]
    frozen = [name for name in own if name.startswith(("embedding.", "blocks.0."))]
    first, second = (found[number].state()["weights"] for number in (0, 1))
    assert all(np.array_equal(each[name], own[name]) for each in (first, second) for name in kept)
    assert not np.array_equal(first["blocks.1.rise.weight"], second["blocks.1.rise.weight"])
    found[0].train(4)
    after = found[0].state()
    assert all(np.array_equal(after["weights"][name], own[name]) for name in frozen)
    assert len(after["optimiser"]) == len(own) - len(frozen)
    told = begun_with(run)
    assert told.origin["map"] == "same shape" and not told.slots and told.batches is None
    # a member that goes on from a checkpoint does not begin again, but its parts are frozen
    resumed = build_members(run, {0: {"learning_rate": 0.01}}, streams=first_files)[0]
    hand_in(resumed.load, after, {"learning_rate": 0.01})
    assert resumed.train(3) == found[0].train(3) and resumed.weights().keys() == found[0].weights().keys()


@pytest.mark.parametrize(
    ("begin", "change", "said"),
    [
        ({"freeze": ["head.*"]}, {}, r"begin\.freeze must name weights of the model, but none fits head"),
        ({"mix": "runs/x"}, {}, r"begin\.mix: an export holds weights alone"),
        ({}, {"trainable": "classifier"}, r"begin\.run: must be of classifier, but .* is of decoder"),
    ],
)
def test_an_export_that_does_not_fit_is_refused(three, tmp_path, begin, change, said) -> None:
    target = Store(str(tmp_path / "best"))
    directory.export_member(three[0], Store(three[0].directory), to=target)
    run = beginning(three[0], tmp_path, run=target.uri, **begin).model_copy(update=change)
    with pytest.raises(InputError, match=said):
        begun = begun_with(run)
        build_members(run, {0: {"learning_rate": 0.01}}, streams=first_files, begun=begun)


def test_weights_are_mixed_with_those_that_were_shrunk_and_no_others(three, tmp_path) -> None:
    # the finished last stage has the right shape, but its cost would be counted nowhere
    wrong = three[2].begin.model_copy(update={"mix": three[2].directory})
    with pytest.raises(InputError, match=r"begin\.mix: must be the run that cycle-small began with"):
        begun_with(three[2].model_copy(update={"begin": wrong}))
    gone = three[2].begin.model_copy(update={"run": str(tmp_path)})
    with pytest.raises(InputError, match="is not a run directory"):
        begun_with(three[2].model_copy(update={"begin": gone}))


def test_a_dry_run_begins_as_the_run_would(three, tmp_path) -> None:
    run = beginning(three[0], tmp_path, run=three[0].directory)
    try_out(run, Console(quiet=True))
    gone = run.begin.model_copy(update={"run": str(tmp_path / "gone")})
    with pytest.raises(InputError, match="is not a run directory"):
        try_out(run.model_copy(update={"begin": gone}), Console(quiet=True))


def test_members_of_unequal_shape_copy_by_a_recorded_map_alone(three) -> None:
    """Gate G11: an exploit between shapes is refused."""
    large = made(three[0], {0: {"learning_rate": 0.01}})[0]
    with pytest.raises(ValueError, match="must come from a network of the same layers"):
        hand_in(large.load, state_of(three[1]), {"learning_rate": 0.01})


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        (CYCLE["stages"][:1], "stages: must be at least two"),
        ([{"name": "a"}, {"name": "a"}], r"stages\.1\.name: must differ from those before, got a"),
        ([{"name": "a", "noise": 0.1}, {"name": "b"}], r"stages\.0\.noise: the first stage begins with nobody"),
        ([{"name": "a"}, {"name": "b", "mix": "a"}], r"stages\.1\.mix: must be a stage before the one that it"),
        ([{"name": "a"}, {"name": "b", "change": {"model.width": 24}}], r"stages\.1: change\.model: a decoder"),
        (
            [{"name": "a"}, {"name": "b", "change": {"training.steps": 0}}],
            r"stages\.1\.change: training\.steps",
        ),
        ([{"name": "a"}, {"name": "b", "change": {"training.steps": 13}}], r"stages\.1: population\.interval"),
        (
            [{"name": "a"}, {"name": "b", "change": {"directory": "x"}}],
            r"stages\.1\.change\.directory: each stage",
        ),
    ],
)
def test_what_cannot_be_stages_is_refused_before_anything_runs(texts, tmp_path, stages, told) -> None:
    with pytest.raises(InputError, match=told):
        cycle(texts, tmp_path, stages=stages)


def test_stages_belong_to_their_kind(texts, tmp_path) -> None:
    with pytest.raises(InputError, match="stages: belong to a run of `kind: stages`"):
        cycle(texts, tmp_path, kind="population")
    run = cycle(texts, tmp_path)
    assert [problems(stage) for stage in stage_runs(run)] == [[], [], []]
    assert [stage.training.steps for stage in stage_runs(run)] == [12, 12, 16]
