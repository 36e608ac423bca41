"""What a file may say of the objective of a decoder or a causal_lm; whatever cannot be is one line."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from shoal.search.errors import InputError
from shoal.search.load import dump, load_run
from shoal.search.runs.dry import try_out

FILE = """\
name: secrets
data:
  groups: {secret: secret.jsonl, plain: plain.jsonl}
  sequence_length: 32
  validation: 0.2
  test: 0.2
  corpus: corpus
model: {layers: 1, heads: 2, width: 16}
training: {steps: 8, batch: 4, warmup: 2, evaluation_rows: 4}
hyperparameters: {learning_rate: {kind: float, low: 0.001, high: 0.1, log: true}}
population: {members: 2, interval: 4, exploit: none}
cluster: {broods: 1}
"""
FORGET = "objective={kind: forget, groups: [secret]}"
RETAIN = "hyperparameters.objective={retain: {kind: float, low: 0.1, high: 10.0, log: true}}"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(FILE)
    for group in ("secret", "plain"):
        texts = (f"{group} {number} of many such texts, each of them with a number" for number in range(60))
        Path(f"{group}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))


def refused(*changes: str) -> str:
    with pytest.raises(InputError) as raised:
        load_run("run.yaml", changes)
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix("run.yaml: ")


def test_the_run_keeps_its_objective_and_knows_what_is_forgotten() -> None:
    run = load_run("run.yaml", [FORGET, RETAIN])
    assert run.forgotten == ("secret",)
    Path("again.yaml").write_text(dump(run))
    assert load_run("again.yaml") == run


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["objective=forget"],
            "objective.groups: must name the groups of data.groups that are to be forgotten",
        ),
        (["objective={kind: forget, groups: [secrt]}"], "objective.groups: secrt is no group; did you mean"),
        (["objective={kind: forget, groups: [secret, plain]}"], "objective.groups: some group must be kept"),
        ([FORGET[:-1] + ", form: negative}"], "objective.form: negative compares with a model to begin"),
        ([FORGET, "score={kind: loss, groups: secret}"], "score.groups: secret is to be forgotten"),
        (
            [FORGET, "mixing.policy=ado", "training.steps=800", "population.interval=400"],
            "mixing.policy: ado goes by losses, which should rise",
        ),
        (
            [FORGET, "sampling.rule=small_loss"],
            "sampling.rule: small_loss goes by losses, which are of another",
        ),
        (
            ["objective=[masked, {kind: forget, groups: [secret]}]"],
            "objective: the decoder takes one objective",
        ),
        (["objective=dice"], "objective.dice: needs logits, which the decoder does not give"),
        ([RETAIN], "hyperparameters.objective: needs `objective:`, whose numbers it has"),
        (
            ["objective=masked", RETAIN],
            "hyperparameters.objective.retain: no number of masked that may be searched",
        ),
        (
            ["objective=masked", "hyperparameters.objective={share: {kind: float, low: 0.1, high: 1.0}}"],
            "hyperparameters.objective.share: share must be above 0 and below 1",
        ),
        (
            ["objective={kind: forget, groups: [secret, secret]}"],
            "objective.groups: must name each group once, got secret twice",
        ),
        ([FORGET[:-1] + ", beta: 0.5}"], "objective.beta: form hinge does not look at it; leave it out"),
        (
            [FORGET, "hyperparameters.objective={beta: {kind: float, low: 0.1, high: 1.0}}"],
            "hyperparameters.objective.beta: form hinge does not look at it",
        ),
        (["objective={kind: masked, weight: 0}"], "objective.masked.weight: is for a list of several losses"),
        (["objective=[{kind: masked, balanced: true}]"], "objective.masked.balanced: is for a list of several"),
        (
            ["objective={kind: masked, share: 0}"],
            "objective.masked.share: must be above 0 and below 1, but got 0",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_cannot_be_is_refused(changes: list[str], said: str) -> None:
    assert refused(*changes).startswith(said)


def test_hidden_tokens_are_neither_written_nor_chosen() -> None:
    rows = "data.format={kind: instruction, prompt: text, answer: text}"
    said = refused("objective=masked", rows, "score=exact_match")
    assert said.startswith("score: exact_match asks for the next tokens")


def test_a_pretrained_model_of_hidden_tokens_does_what_the_decoder_does() -> None:
    pytest.importorskip("transformers")
    from tests.helpers.pretrained import tiny_model

    folder = "model={path: " + tiny_model() + "}"
    model = ["objective=masked", "trainable=causal_lm", folder]
    assert load_run("run.yaml", model).hides
    rows = "data.format={kind: instruction, prompt: text, answer: text}"
    assert refused(*model, rows, "score=exact_match").startswith("score: exact_match asks for the next tokens")
    assert refused(*model, "mixing={policy: doremi, reference: best}").startswith(
        "mixing.reference: is compared"
    )
    assert "takes one objective" in refused("objective=[masked, {kind: forget, groups: [secret]}]", *model[1:])
    assert refused(*model, "refine={made: 'mine:Writer', base: best}").startswith("refine: scores rows by")


@pytest.mark.parametrize(
    "more", [[], ["mixing.policy=random"], ["sampling.rule=random_subset"]], ids=["", "mixed", "rule"]
)
@pytest.mark.parametrize("objective", [[FORGET, RETAIN], ["objective=masked"]], ids=["forget", "masked"])
def test_members_train_and_are_judged_as_the_file_says(objective: list[str], more: list[str]) -> None:
    said = io.StringIO()
    try_out(load_run("run.yaml", [*objective, *more]), Console(file=said, width=200))
    assert "validation" in said.getvalue()
