"""Decoders with experts out of a run's file, without Ray: searched, copied, resumed, exported."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import shoal
from shoal.cluster.storage import Store
from shoal.search.checks.run import problems
from shoal.search.config.run import Run
from shoal.search.config.selection import EmbeddingScore, GradientScore, LossScore
from shoal.search.config.stage_runs import stage_runs
from shoal.search.corpus.text import sample_of
from shoal.search.distill.card import card_of
from shoal.search.errors import InputError
from shoal.search.front.loading import load_trained
from shoal.search.load import dump
from shoal.search.members.classes import exported_class
from shoal.search.records import directory
from shoal.search.records.beginning import begun_with, slots_of
from shoal.search.records.last import member_of
from shoal.search.records.lineage import read_lineage
from shoal.search.selection.interface import Scoring
from shoal.search.selection.scorers import open_scorer
from shoal.trainables.scoring import row_losses
from tests.helpers.classifiers import classifier
from tests.helpers.members import gated, points
from tests.helpers.pretrained import tiny_llama
from tests.helpers.runs import write_texts
from tests.search.members.test_begun import CYCLE, beginning, cycle, made, same, state_of, trained, weights
from tests.trainables.test_class_rescaling import weighed

MODEL = {"layers": 2, "heads": 2, "width": 16, "experts": 3, "gate": "tanh", "active_experts": 2}
NARROW = {"kind": "float", "low": 0.1, "high": 1.0, "log": True}
SEARCHED = {
    "learning_rate": {"kind": "float", "low": 1e-3, "high": 1e-1, "log": True},
    "gate_start": {"kind": "float", "low": 1.0, "high": 8.0, "log": True},
    "gate_end": NARROW,
    "gate_balance": {"kind": "float", "low": 1e-3, "high": 0.1, "log": True},
}
PLAIN = {"hyperparameters": {"learning_rate": NARROW}}
FIRST = {"learning_rate": 0.01, "gate_end": 0.5}


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts"))


def population(texts: Path, place: Path, **changes: Any) -> Run:
    given = {"kind": "population", "stages": [], "model": MODEL, "hyperparameters": SEARCHED}
    return cycle(texts, place, **given | changes)


@pytest.fixture(scope="module")
def whole(texts, tmp_path_factory) -> Run:
    return trained(population(texts, tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def best(whole, tmp_path_factory) -> str:
    """Return the folder of an exported decoder with experts."""
    target = Store(str(tmp_path_factory.mktemp("best") / "best"))
    directory.export_member(whole, Store(whole.directory), to=target)
    return target.uri


def test_the_gate_cools_in_each_member_by_its_own_numbers(whole) -> None:
    assert any(event.event == "copy" for event in read_lineage(Store(whole.directory)))
    for member in (0, 1):
        now, end = weights(whole, member)["temperatures"]
        assert now == end and 0.1 <= end <= 1, "the last step has the last temperature"


def test_a_stopped_run_goes_on_bit_for_bit(whole, texts, tmp_path) -> None:
    run = population(texts, tmp_path)
    trained(run, until=2)
    trained(run)
    assert all(same(weights(run, member), weights(whole, member)) for member in (0, 1))


def test_an_export_gives_the_losses_of_its_member(whole, best) -> None:
    config = json.loads(Path(best, "config.json").read_text())
    assert {name: config["shape"][name] for name in MODEL} == MODEL
    member = made(whole, {0: FIRST})[0]
    member.load(state_of(whole), FIRST)
    score, losses = member.evaluate()
    stored = load_file(str(Path(best, "model.safetensors")))
    store = Store(whole.directory)
    module = load_trained(whole, store, member_of(whole, store, None), stored, {})
    rows = sample_of(whole, "validation", whole.training.evaluation_rows)
    found = {group: float(row_losses(module, each).mean()) for group, each in rows.items()}
    assert found == pytest.approx(losses, abs=1e-5) and -np.mean(list(found.values())) == pytest.approx(score)
    again = exported_class(whole, config)
    assert again.constants["shape"].experts == 3


def test_scorers_read_an_export(best) -> None:
    rows = np.random.default_rng(0).integers(0, 257, (6, 24)).astype(np.uint16)
    for settings in (
        LossScore(kind="loss", model=best),
        EmbeddingScore(kind="embedding", model=best),
        GradientScore(kind="gradients", model=best),
    ):
        found = open_scorer(Scoring(settings, "selection.scores.0", 24))(rows, np.arange(6))
        assert all(np.isfinite(np.asarray(each, dtype=np.float64)).all() for each in found.values())


def test_a_run_begins_with_experts_and_keeps_their_slots(whole, best, tmp_path) -> None:
    run = beginning(whole, tmp_path, run=whole.directory, slots="keep")
    found = made(run, {0: FIRST})[0]
    own, state = weights(whole), state_of(whole)
    held = found.state()
    assert all(np.array_equal(held["weights"][name], own[name]) for name in own)
    assert len(state["optimiser"]) == len(own) - 1, "temperatures have no slots"
    for place, slots in state["optimiser"].items():
        assert np.array_equal(slots["exp_avg"], held["optimiser"][place]["exp_avg"])
    found.train(1)
    # a run of its own heats the gate again, as it warms the rate up again
    assert found.module.temperatures.tolist() == [pytest.approx(whole.model.gate_start), 0.5]
    frozen = beginning(whole, tmp_path, run=best, freeze=["blocks.*.gate.*"], fresh=["blocks.1.*"])
    still = made(frozen, {0: FIRST})[0]
    still.train(2)
    after = still.state()["weights"]
    assert np.array_equal(after["blocks.0.gate.weight"], own["blocks.0.gate.weight"])
    assert not np.array_equal(after["blocks.0.rise.weight"], own["blocks.0.rise.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"experts": 2}, "experts 3 and would have 2"),
        ({"gate": "linear"}, "gate tanh and would have linear"),
        ({"layers": 4}, "layers 2 and would have 4"),
        ({"expansion": 2.0}, "feed-forward width 64 and would have 32"),
    ],
)
def test_experts_that_do_not_fit_are_not_begun_with(whole, best, tmp_path, change, said) -> None:
    other = whole.model_copy(update={"model": whole.model.model_copy(update=change)})
    for place in (whole.directory, best):
        with pytest.raises(InputError, match=f"begin: a decoder with experts must keep .* it has {said}"):
            begun_with(beginning(other, tmp_path, run=place))


def test_an_export_without_experts_does_not_become_one_with_them(whole, texts, tmp_path) -> None:
    plain = trained(population(texts, tmp_path / "plain", model={}, **PLAIN))
    target = Store(str(tmp_path / "best"))
    directory.export_member(plain, Store(plain.directory), to=target)
    config = Path(target.uri, "config.json")
    told = json.loads(config.read_text())
    told["shape"] = {
        name: value
        for name, value in told["shape"].items()
        if name not in ("experts", "gate", "active_experts")
    }
    config.write_text(json.dumps(told))  # as before there were experts
    same_shape = beginning(plain, tmp_path, run=target.uri)
    assert begun_with(same_shape).origin["map"] == "same shape"
    with pytest.raises(InputError, match="it has experts 1 and would have 3"):
        begun_with(beginning(whole, tmp_path, run=plain.directory))


def test_stages_with_experts_keep_their_shape(texts, tmp_path) -> None:
    hyperparameters = {"hyperparameters": SEARCHED, "model": MODEL}
    stages = [{"name": "first"}, {"name": "last", "change": {"training.steps": 16}}]
    run = cycle(texts, tmp_path, stages=stages, **hyperparameters)
    assert [problems(stage) for stage in stage_runs(run)] == [[], []]
    stages[1] = {"name": "last", "change": {"model.layers": 4}}
    with pytest.raises(
        InputError, match=r"stages\.1: change\.model: a decoder with experts must keep its layers"
    ):
        cycle(texts, tmp_path, stages=stages, **hyperparameters)


def test_a_plan_counts_them_by_hand(texts, tmp_path) -> None:
    (plan,) = shoal.plan(population(texts, tmp_path).model_dump(exclude_unset=True, mode="json"))
    # in a block two norms of 16, attention 4 * 16 * 16, three inner layers 2 * 16 * 64, a gate of 3 * 16 and 3
    block = 2 * 16 + 4 * 256 + 3 * 2 * 16 * 64 + 3 * 16 + 3
    assert plan.weights == 257 * 16 + 2 * block + 16


def test_a_file_with_experts_is_written_and_read_again(texts, tmp_path) -> None:
    run = population(texts, tmp_path)
    Path(tmp_path, "again.yaml").write_text(dump(run))
    assert shoal.search.load.load_run(str(tmp_path / "again.yaml")) == run
    plain = dump(population(texts, tmp_path, model={}, **PLAIN))
    assert "gate" not in plain


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            PLAIN | {"model": {"gate": "tanh"}},
            r"model\.gate: a decoder without model\.experts does not look at it",
        ),
        (
            PLAIN | {"model": {"gate_end": 0.1}},
            r"model\.gate_end: a decoder without model\.experts does not look at it",
        ),
        ({"model": {}}, r"hyperparameters\.gate_start: cools a gate between experts; set model\.experts"),
        ({"model": MODEL | {"gate": "relu"}}, r"model\.gate: must be one of linear, tanh, sigmoid"),
        ({"model": MODEL | {"active_experts": 4}}, r"model\.active_experts: must be from 0 to experts \(3\)"),
        ({"model": MODEL | {"gate_end": 0}}, r"model\.gate_end: must be greater than 0"),
        (
            PLAIN | {"model": MODEL | {"gate_start": 0.1}},
            r"model\.gate_end: must be at most model\.gate_start \(at most 0\.1\), since a gate cools",
        ),
        (
            {"hyperparameters": {"gate_end": {"kind": "float", "low": 3.0, "high": 9.0}}},
            r"hyperparameters\.gate_end: must be at most model\.gate_start \(at most 2\), .* got at least 3",
        ),
        (
            {"hyperparameters": {"gate_start": {"kind": "float", "low": 0.1, "high": 0.2}}},
            r"model\.gate_end: must be at most hyperparameters\.gate_start \(at most 0\.2\)",
        ),
        (
            {"hyperparameters": {"gate_end": {"kind": "float", "low": 0.0, "high": 1.0}}},
            r"hyperparameters\.gate_end: model\.gate_end must be greater than 0, but may become 0",
        ),
        (
            {"sampling": {"rule": "infobatch", "view": "brood"}},
            r"sampling\.view: members whose objective has other numbers .* hyperparameters\.gate_balance",
        ),
        (
            {"mixing": {"policy": "ado"}, "training": CYCLE["training"] | {"steps": 120}},
            r"mixing\.policy: ado goes by training losses, whose units hyperparameters\.gate_balance changes",
        ),
    ],
)
def test_what_cannot_be_is_one_line(texts, tmp_path, changes, said) -> None:
    with pytest.raises(InputError, match=said) as raised:
        population(texts, tmp_path, **changes)
    assert "\n" not in str(raised.value)


def test_no_other_class_has_experts_and_no_student_is_taught_by_them(texts, tmp_path, best) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(InputError, match=r"model\.experts: the causal_lm does not look at it"):
        model = {"path": tiny_llama(vocabulary=260), "experts": 2}
        population(texts, tmp_path, trainable="causal_lm", model=model, **PLAIN)
    with pytest.raises(InputError, match=r"distill\.teacher: .* cannot be read"):
        card_of(best, "distill.teacher")


def with_teacher() -> Any:
    return classifier({"future_teacher": {"ahead": 0, "decay": 0.5}})


@pytest.mark.parametrize("make", [classifier, with_teacher, weighed, points, gated])
def test_slots_are_those_of_their_weights_where_a_network_has_buffers(make) -> None:
    member = make()
    member.train(2)
    state = member.state()
    donor: Any = SimpleNamespace(
        training=SimpleNamespace(optimiser="adamw"), begin=None, model=SimpleNamespace(freeze=[])
    )
    found = slots_of(state, state["weights"], donor, donor, None)["exp_avg"]
    assert list(found) == list(member.weights())
    for weight, slot in zip(member.weights().values(), found.values(), strict=True):
        assert np.array_equal(member.optimiser.state[weight]["exp_avg"], slot)
