"""What a file may say of objectives and of the classifier; whatever cannot be is one line."""

from pathlib import Path

import pytest

from shoal.search.config.objective import objectives_of
from shoal.search.errors import InputError
from shoal.search.load import dump, load_run
from shoal.trainables.objectives.dice import Dice
from shoal.trainables.objectives.kinds import OBJECTIVES

FILE = """\
name: tables
trainable: classifier
data:
  groups: {one: one.parquet, two: two.parquet}
  columns:
    x: {kind: tensor, shape: [6]}
    label: {kind: class, names: [a, b, c]}
training: {steps: 40}
hyperparameters: {learning_rate: {kind: float, low: 0.001, high: 0.1, log: true}}
population: {members: 4, interval: 10}
cluster: {broods: 1}
"""
ALPHA = "hyperparameters.objective={alpha: {kind: float, low: 0.001, high: 0.1, log: true}}"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(FILE)


def refused(*changes: str) -> str:
    with pytest.raises(InputError) as raised:
        load_run("run.yaml", changes)
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix("run.yaml: ")


def test_a_file_without_an_objective_trains_by_cross_entropy() -> None:
    assert list(objectives_of(load_run("run.yaml")).terms) == ["cross_entropy"]


def test_an_objective_is_a_word_a_mapping_or_a_list_and_the_run_keeps_it() -> None:
    assert objectives_of(load_run("run.yaml", ["objective=dice"])).terms == {"dice": Dice()}
    run = load_run("run.yaml", ["objective=[cross_entropy, {kind: dice, alpha: 0.05, weight: 2}]"])
    assert objectives_of(run).terms["dice"] == Dice(alpha=0.05, weight=2.0)
    Path("again.yaml").write_text(dump(run))
    assert load_run("again.yaml") == run


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["objective=dise"], "objective.kind: no such objective; did you mean `dice`?"),
        (["objective={kind: dice, alpa: 1}"], "objective.dice.alpa: unknown key; did you mean `alpha`?"),
        (
            ["objective={kind: dice, alpha: 2}"],
            "objective.dice.alpha: must be at least 0 and at most 1, but got 2",
        ),
        (["objective=[dice, dice]"], "objective: each kind may stand in the list once, got dice twice"),
        (
            ["objective=contrastive"],
            "objective: contrastive trains no prediction; add one that does to the list",
        ),
        (
            ["objective={kind: z_margin, margin: 1.5}"],
            "objective: z_margin: margin must be below sqrt(classes - 1)",
        ),
        (
            ["objective=domain_heads"],
            "settings.group: names the column of `group`, at which the objective looks",
        ),
        (
            ["objective=adversarial_style"],
            "settings.network: must be conv with objective adversarial_style, which changes feature maps",
        ),
        (
            ["sampling.rule=storm", "objective=worst_rows"],
            "sampling.rule: storm needs an objective without a state or a step of its own, got worst_rows",
        ),
        (
            ["sampling.rule=storm", "training.accumulate=2"],
            "training.accumulate: must be 1 with storm, which learns from whole batches, got 2",
        ),
        (["settings={netwrk: mlp}"], "settings.netwrk: no constant of the classifier; did you mean `network`?"),
        (["settings={width: 0}"], "settings.width: must be at least 1, but got 0"),
        (
            ["settings={label: lable}"],
            "settings.label: names the column of the label, but there is no lable, and",
        ),
        (
            ["settings={inputs: [y]}"],
            "settings.inputs: no such column; allowed are label, x, and rows have x, label",
        ),
        (
            ["data.columns.label=class"],
            "settings.classes: is required, since data.columns.label names no labels",
        ),
        (
            ["objective=dice", ALPHA.replace("0.1,", "2,")],
            "hyperparameters.objective.alpha: alpha must be at least",
        ),
        ([ALPHA], "hyperparameters.objective.alpha: cross_entropy has no number that may be searched"),
        (
            ["objective=[cross_entropy, dice]", ALPHA],
            "hyperparameters.objective.alpha: a list of objectives has its numbers by kind",
        ),
        (
            ["hyperparameters.drop={kind: float, low: 0, high: 1}"],
            "hyperparameters.drop: settings.drop must be at",
        ),
        (["trainable=classifer"], "trainable: must be decoder, causal_lm, preference, classifier"),
        (
            ["objective=worst_rows", "training.accumulate=2"],
            "training.accumulate: must be 1 with objective worst_rows",
        ),
        (
            ["objective={kind: dice, form: batch}", "sampling.rule=infobatch"],
            "sampling.rule: needs the loss of each row, and dice gives one for a batch; use its form: rows",
        ),
        (
            ["objective=dice", ALPHA, "sampling={rule: infobatch, view: brood}"],
            "sampling.view: members whose objective has other numbers have losses of other units; use member",
        ),
        (
            ["objective=dice", ALPHA, "training.steps=200", "mixing.policy=ado"],
            "mixing.policy: ado goes by training losses, whose units hyperparameters.objective changes",
        ),
        (
            ["objective=[{kind: dice, weight: 0}, {kind: cross_entropy, weight: 0}]"],
            "objective: one of the losses must have a weight above 0",
        ),
        (
            ["objective=[cross_entropy, guided]"],
            "objective.guided: looks at guide_positive, guide_query, of which a classifier knows nothing",
        ),
        (
            ["settings.classes=2"],
            "settings.classes: must be at least 3, since data.columns.label names 3, got 2",
        ),
        (["data.columns.label.names=[a]"], "settings.classes: must be at least 2"),
        (["data.columns.label.names=[a, 1, '1']"], "data.columns.label.names: must name each label once"),
        (["settings.inputs=[x, label]"], "settings.inputs: must leave out label, the column of the label"),
        (["settings.inputs=[x, x]"], "settings.inputs: must name each column once, got x twice"),
        (["sampling.rule=storm", "training.batch=1"], "training.batch: must be at least 2 with storm"),
    ],
)
def test_what_cannot_be_is_one_line(changes: list[str], said: str) -> None:
    assert refused(*changes).startswith(said), refused(*changes)


def test_an_objective_belongs_to_classes_that_take_one() -> None:
    Path("run.yaml").write_text("name: x\ndata: {groups: {code: installed}}\npopulation: {exploit: none}\n\n")
    assert refused("objective=dice") == "objective.dice: needs logits, which the decoder does not give"
    assert refused("settings={width: 4}").startswith("settings: only a class of your own has it")


def test_every_objective_of_logits_can_be_named_in_a_file() -> None:
    more = [
        "data.columns.group={kind: number, type: int64}",
        "data.columns.unlabelled={kind: number, type: bool}",
        "data.columns.bag={kind: number, type: int64}",
        "data.columns.shares={kind: tensor, shape: [3]}",
    ]
    for kind, made in OBJECTIVES.items():
        if "logits" in made().needs:
            more = [*more, "settings.network=conv"] if "styles" in made().needs else more
            run = load_run("run.yaml", [f"objective={kind}", *more])
            assert list(objectives_of(run).terms) == [kind]
