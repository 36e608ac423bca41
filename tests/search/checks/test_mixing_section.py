"""`mixing:` in a run's file: what it is built to, and every mistake in it before anything trains."""

import json

import numpy as np
import pytest

from shoal.policies.mixers.aioli import Aioli
from shoal.policies.mixers.plain import Stages, Stratified
from shoal.policies.mixers.rules import MIXERS
from shoal.policies.mixers.skillit import SkillIt
from shoal.search.checks.mixing import check_with_rows, note_on_batches
from shoal.search.errors import InputError
from shoal.search.load import checked_run, dump, load_run
from shoal.search.runs.controls import controls

RUN = """
name: mixed
data: {groups: {code: installed, docs: installed, law: installed}}
training: {steps: 100, batch: 8}
population: {members: 4, interval: 20}
mixing: {policy: {kind: aioli, every: 20, sweeps: 2, probe_share: 0.4}, floor: 0.05}
hyperparameters:
  learning_rate: {kind: float, low: 1e-4, high: 1e-2, log: true}
  mixing:
    rate: {kind: float, low: 0.1, high: 1.0}
"""


def write(tmp_path, text: str = RUN) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return str(path)


def test_a_policy_is_built_for_the_groups_in_their_order(tmp_path) -> None:
    run = load_run(write(tmp_path), ["mixing.policy.objective={law: 2, code: 1}", "mixing.epochs=4"])
    built = run.mixing.build(("code", "docs", "law"))
    assert built.policy == Aioli(every=20, sweeps=2, probe_share=0.4, objective=(1.0, 0.0, 2.0))
    assert (built.floor, built.epochs) == (0.05, 4.0)
    assert checked_run(run.model_dump(mode="json"), "again") == run and "probe_share" in dump(run)


def test_what_is_unseen_counts_and_is_not_trained_on(tmp_path) -> None:
    rate = "hyperparameters.mixing={rate: {kind: float, low: 0.1, high: 1}}"
    run = load_run(
        write(tmp_path), ["mixing.unseen=[docs]", "mixing.policy.prior={law: 0.75, code: 0.25}", rate]
    )
    groups = run.groups_of({"code": 100, "docs": 90, "law": 80})
    assert (groups.names, groups.rows, groups.targets) == (("code", "law"), (100, 80), ("docs",))
    assert run.mixing.build(("code", "docs", "law")).policy.prior == (0.25, 0.75)
    graph = "mixing.policy={kind: skill_it, graph: {code: {docs: 0.5}, law: {docs: 0.25}}}"
    run = load_run(write(tmp_path), ["mixing.unseen=[docs]", graph, "hyperparameters.mixing.rate.high=2"])
    assert run.mixing.build(("code", "docs", "law")).policy == SkillIt(((0.5,), (0.25,)))
    # the control in equal shares does not train on it either
    assert controls(run)[1].mixing.build(("code", "docs", "law")).policy == Stratified()
    assert controls(run)[1].unseen == ["docs"] and checked_run(
        controls(run)[1].model_dump(mode="json"), "again"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("mixing.unseen=[laws]", "mixing.unseen.laws: no such group; it can be code, docs, law"),
        ("mixing.unseen=[law, docs, code]", "mixing.unseen: some group must be trained on, but these are all"),
        (
            "mixing.unseen=[law]; mixing.policy.prior={law: 1}",
            "mixing.policy.prior.law: no such group; it can be code, docs",
        ),
        (
            "mixing.unseen=[law]; mixing.policy.objective={code: 1}",
            "mixing.policy.objective.code: no such group; it can be law",
        ),
        (
            "mixing.unseen=[law]; mixing.policy={kind: doge}",
            "mixing.unseen: doge sees gradients of what is trained alone; use aioli or skill_it",
        ),
    ],
)
def test_a_mistake_in_what_is_unseen_is_named(tmp_path, change: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        load_run(write(tmp_path), change.split("; "))
    assert said in str(error.value)


def test_proportions_are_given_by_name(tmp_path) -> None:
    stages = "[{from_step: 0, proportions: {law: 1}}, {from_step: 60, proportions: {code: 0.5, law: 0.5}}]"
    changes = [f"mixing.policy={{kind: stages, stages: {stages}}}", "hyperparameters.mixing={}"]
    run = load_run(
        write(tmp_path), [*changes[:1], "hyperparameters.mixing={floor: {kind: float, low: 0, high: 0.1}}"]
    )
    policy = run.mixing.build(("code", "docs", "law")).policy
    assert policy == Stages(((0, (0.0, 0.0, 1.0)), (60, (0.5, 0.0, 0.5))))
    graph = "{code: {code: 1, docs: 0.5}, docs: {docs: 1}, law: {law: 1}}"
    run = load_run(write(tmp_path), [f"mixing.policy={{kind: skill_it, graph: {graph}}}"])
    assert run.mixing.build(("code", "docs", "law")).policy == SkillIt(((1, 0.5, 0), (0, 1, 0), (0, 0, 1)))


def exported(tmp_path, **changes) -> str:
    """Write the folder of an exported model as far as it is looked at before training."""
    shape = {"vocabulary": 257, "sequence_length": 128}
    card = {"trainable": "decoder", "tokenizer": "bytes", "shape": shape, "step": 300} | changes
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "config.json").write_text(json.dumps(card))
    (tmp_path / "best" / "model.safetensors").write_bytes(b"")
    return str(tmp_path / "best")


SETTINGS = {
    "fixed": "proportions: {code: 1}",
    "stages": "stages: [{from_step: 0, proportions: {code: 1}}]",
    "end_upsampling": "final: {law: 1}",
    "skill_it": "graph: {code: {code: 1}}",
}


@pytest.mark.parametrize("kind", MIXERS)
def test_every_policy_can_be_named_and_has_the_same_defaults_as_itself(tmp_path, kind: str) -> None:
    changes = [f"mixing.policy={{kind: {kind}, {SETTINGS.get(kind, '')}}}"]
    changes.append("hyperparameters.mixing={floor: {kind: float, low: 0, high: 0.1}}")
    if kind == "doremi":
        changes.append(f"mixing.reference={exported(tmp_path)}")
    built = load_run(write(tmp_path), changes).mixing.build(("code", "docs", "law")).policy
    given = {
        name: getattr(built, name)
        for name in ("proportions", "stages", "final", "graph")
        if hasattr(built, name)
    }
    assert built == MIXERS[kind](**given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "mixing.policy={kind: fixed, proportions: {code: 0.5, law: 0.4}}",
            "mixing.policy.proportions: proportions must sum to 1, but these sum to 0.9",
        ),
        (
            "mixing.policy={kind: fixed, proportions: {cod: 1}}",
            "mixing.policy.proportions.cod: no such group; it can be code, docs, law",
        ),
        (
            "mixing.policy.prior={code: 0.5}",
            "mixing.policy.prior: proportions must sum to 1, but these sum to 0.5",
        ),
        ("mixing.policy.objective={laws: 1}", "mixing.policy.objective.laws: no such group"),
        (
            "mixing.policy={kind: skill_it, graph: {code: {lw: 1}}}",
            "mixing.policy.graph.code.lw: no such group",
        ),
        ("mixing.policy.every=6", "mixing: the probes of a round must be shorter than the round"),
        ("mixing.floor=0.4", "mixing.floor: must be at most 1/3 for 3 groups, but got 0.4"),
        ("data.exhausted=stop", "data.exhausted: must be repeat with mixing, whose epochs bound it, got stop"),
        ("mixing.policy=aiolo", "mixing.policy.kind: must be one of fixed, stratified"),
        ("mixing.policy.rat=1", "mixing.policy.rat: unknown key; did you mean `rate`?"),
        (
            "training.batch=2; mixing.policy.probe_share=0.2",
            "training.batch: a probe of 1 steps of 2 rows must hold a row of each of 3 groups",
        ),
        ("training.evaluation_rows=1", "mixing.policy.noise: errors need two sweeps and two evaluation_rows"),
        ("mixing.policy.sweeps=1", "mixing.policy.sweeps: must be at least 2 with noise 2, since what"),
        ("mixing.policy.objective={law: 0}", "mixing.policy.objective: must be at least 0 and not all 0"),
        (
            "mixing.policy.prior_steps=94",
            "prior_steps 94, 6 steps of probes and 0 of their evaluation leave none of 100",
        ),
        ("data.proportions={code: 1}", "mixing: stands in place of data.proportions"),
        (
            "mixing=null",
            "hyperparameters.mixing: searches a mixing policy's settings, but there is no `mixing:`",
        ),
        ("trainable=toy", "mixing: needs rows in groups, and the toy takes none"),
        (
            "hyperparameters.mixing={rat: {kind: float, low: 0, high: 1}}",
            "hyperparameters.mixing.rat: aioli has no such number; it has rate, every",
        ),
        (
            "hyperparameters.mixing={floor: {kind: float, low: 0, high: 0.5}}",
            "hyperparameters.mixing.floor: 0.5 cannot be: floor must be at most 1/3",
        ),
        (
            "mixing.policy.noise=0; hyperparameters.mixing={sweeps: {kind: int, low: 1, high: 2}, "
            "noise: {kind: float, low: 0, high: 2}}",
            "hyperparameters.mixing: sweeps 1, noise 2.0 cannot be: sweeps must be at least 2",
        ),
        (
            "hyperparameters.mixing={probe_share: {kind: float, low: 0.05, high: 0.4}}; training.batch=2",
            "training.batch: a probe of 1 steps of 2 rows must hold a row of each of 3 groups",
        ),
        (
            "mixing.policy={kind: ado, skip: 70}",
            "mixing: ado moves first after step 100, when 30 steps after skip 70 are seen",
        ),
        (
            "mixing.policy={kind: skill_it, graph: {code: {code: 1}}, every: 100}",
            "mixing.policy.every: must be less than the run's 100 steps, or no loss would ever be heard",
        ),
        (
            "mixing.policy={kind: doge, proxy_share: 0.004}",
            "mixing.policy.proxy_share: must make at least one step, but 0.004 of 100 steps is 0.4",
        ),
        (
            "mixing.policy={kind: end_upsampling, final: {law: 1}, share: 0.004}",
            "mixing.policy.share: must make at least one step, but 0.004 of 100 steps is 0.4",
        ),
        (
            "mixing.policy={kind: stages, stages: [{from_step: 0, proportions: {law: 1}}, "
            "{from_step: 100, proportions: {code: 1}}]}",
            "mixing.policy.stages: must begin within the run's 100 steps, but one does at 100",
        ),
        (
            "hyperparameters.mixing={kind: float, low: 0, high: 1}",
            "hyperparameters.mixing: must hold domains by name",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path, change: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        load_run(write(tmp_path), change.split("; "))
    assert said in str(error.value)


DOREMI = "mixing.policy=doremi; hyperparameters.mixing={rate: {kind: float, low: 0.1, high: 1}}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            DOREMI,
            "mixing.reference: doremi compares losses with those of a trained model; name",
        ),
        (
            f"{DOREMI}; mixing.reference=nowhere/best",
            "mixing.reference: must be the folder of an exported model",
        ),
        ("mixing.reference=nowhere/best", "mixing.reference: aioli compares with no other model; leave it out"),
        (
            f"{DOREMI}; mixing.reference=nowhere; cluster.stack=true",
            "cluster.stack: doremi measures one member within a step, so its members train",
        ),
        (
            f"{DOREMI.replace('doremi', 'doge')}; cluster.workers_per_member=2",
            "cluster.workers_per_member: doge measures within a step on one worker; set it to 1",
        ),
        (
            f"{DOREMI.replace('doremi', 'doge')}; training.batch=2",
            "mixing: each of 3 groups must be seen between two updates, but 1 steps of 2 rows are fewer",
        ),
        (
            f"{DOREMI.replace('doremi', 'doge')}; mixing.policy.proxy_share=0",
            "mixing.policy.proxy_share: must be in (0, 1], but got 0",
        ),
    ],
)
def test_what_doremi_and_doge_need_is_asked_for(tmp_path, change: str, said: str) -> None:
    changes = change.replace("doremi", "{kind: doremi}").replace("doge", "{kind: doge}").split("; ")
    with pytest.raises(InputError) as error:
        load_run(write(tmp_path), changes)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": {"vocabulary": 300}}, "tokenizer bytes of 257 tokens, as the run has, but .* of 300"),
        ({"tokenizer": "words"}, "tokenizer bytes of 257 tokens, as the run has, but .* for words"),
        ({"trainable": "toy", "shape": {}}, "mixing.reference: must be a decoder for .* is toy"),
    ],
)
def test_a_reference_must_be_a_language_model_of_the_same_tokens(tmp_path, changes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_run(write(tmp_path), [*DOREMI.split("; "), f"mixing.reference={exported(tmp_path, **changes)}"])


def test_a_reference_is_found_from_any_folder(tmp_path, monkeypatch) -> None:
    folder = exported(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = load_run(write(tmp_path), [*DOREMI.split("; "), "mixing.reference=best"])
    assert run.mixing.reference == folder


def test_caps_that_cannot_hold_are_found_when_the_rows_are_known(tmp_path) -> None:
    run = load_run(write(tmp_path), ["mixing.epochs=2"])
    assert check_with_rows(run, {"code": 300, "docs": 80, "law": 30}) == ""
    # 100 steps of 8 rows are 800, but 2 epochs of 390 rows only 780
    said = check_with_rows(run, {"code": 300, "docs": 60, "law": 30})
    assert said.startswith("mixing: 2 epochs of all groups are 780 rows, but 100 steps of 8 need 800")


def test_small_batches_are_said_to_hold_proportions_over_visits(tmp_path) -> None:
    assert note_on_batches(load_run(write(tmp_path))) == ""
    small = load_run(write(tmp_path), ["training.batch=2", "mixing.policy.probe_share=0.6"])
    assert "a batch of 2 rows is smaller than the 3 groups" in note_on_batches(small)
    assert np.isfinite(small.mixing.floor)
