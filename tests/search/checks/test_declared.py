"""A file may ask of a class what the class has declared; all else is one line before anything starts."""

import sys
from pathlib import Path

import pytest

from shoal.search.config.trainable import Trainable
from shoal.search.errors import InputError
from shoal.search.load import dump, load_run
from shoal.search.records.directory import same_run
from tests.helpers.small_files import CLASS, OWN, TEXT

CLASS_OF = "from tests.helpers.own_networks import Bigrams\n\n\nclass Slope(Bigrams):\n    {}\n"
TAKES = OWN.replace(
    "  rate: {kind: float, low: 0.001, high: 0.1, log: true}", "  clip: {kind: float, low: 0.5, high: 2}"
)
TAKES += "data: {groups: {code: installed, more: texts}}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def load(name: str, body: str = "pass", *changes: str, file: str = TAKES):
    """Load the file of a run of `Slope`, a class with this body that takes tokens."""
    Path(f"declared_{name}.py").write_text(CLASS_OF.format(body))
    Path("run.yaml").write_text(file.replace("MODULE", f"declared_{name}"))
    return load_run("run.yaml", changes)


def refused(name: str, body: str, *changes: str, file: str = TAKES) -> str:
    with pytest.raises(InputError) as raised:
        load(name, body, *changes, file=file)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_class_says_what_it_takes_and_the_run_keeps_it(tmp_path) -> None:
    run = load("takes", "pass", "settings={width: 4}")
    told = run.described
    assert told == Trainable(
        takes=("tokens",),
        by_row=True,
        by_loss=True,
        network=True,
        hyperparameters=told.hyperparameters,
        constants=("vocabulary", "width", "scale"),
        searched=("scale",),
        priced=("bits", "density", "prior"),
    )
    assert {"scale", "learning_rate"} <= set(told.hyperparameters) and run.settings == {"width": 4}
    Path("again.yaml").write_text(dump(run))
    assert load_run("again.yaml") == run and "declared:" in dump(run) and "data:" in dump(run)
    # who looks at the directory later need not have the class
    assert run.takes_rows and run.by_loss


def test_policies_controls_and_searches_take_any_class_that_declares_what_they_need() -> None:
    load("mixes", "pass", "mixing.policy=aioli")
    load("doremi", "pass", "mixing={policy: stratified, floor: 0.1}")
    load("samples", "pass", "sampling.rule=infobatch", "sampling.view=brood")
    swarm = "swarm={runs: 6, settings: {width: 2}}"
    bare = TAKES.replace("hyperparameters:\n  clip: {kind: float, low: 0.5, high: 2}\n", "")
    bare = bare.replace(
        "population: {members: 2, interval: 10, exploit: {kind: truncation, fraction: 0.5}}\n", ""
    )
    run = load("swarm", "pass", "kind=mixture", swarm, file=bare)
    from shoal.search.runs.mixture import as_population, design, with_small_model

    small = as_population(with_small_model(run), "swarm", 40, 1, design(run))
    assert small.settings == {"width": 2} and small.mixing is not None
    assert as_population(run, "confirm", 40, 1, design(run)).settings == {}


BY_ROW = "needs the loss of each row: let `loss` of Slope return `(rows,)`, and say so by `by_row = True`"


def test_a_policy_that_needs_losses_by_row_says_what_is_to_be_declared() -> None:
    scalar = "by_row = False\n    score = None"
    for place, change in enumerate(["mixing.policy=aioli", "sampling.rule=infobatch"]):
        said = refused(f"scalar_{place}", scalar, change)
        assert said.endswith(f"{change.partition('.')[0] if place == 0 else 'sampling.rule'}: {BY_ROW}")
    said = refused("scalar_score", "by_row = False")
    assert "must have the method score(module, rows), or say `by_row = True` and which rows it `takes`" in said


def test_rows_need_a_class_that_takes_them() -> None:
    Path("plain_class.py").write_text(CLASS)
    Path("run.yaml").write_text(OWN.replace("MODULE", "plain_class"))
    with pytest.raises(
        InputError, match=r"mixing: needs rows in groups, and Slope takes none; a class that takes"
    ):
        load_run("run.yaml", ["mixing.policy=aioli"])
    with pytest.raises(InputError, match=r"data.megabytes: .* let the class say `takes = {\"tokens\"}`"):
        load_run("run.yaml", ["data.megabytes=2"])
    said = refused("words", 'takes = {"words"}')
    assert "must take rows of tokens, instruction, preference, columns as a set, such as {'tokens'}" in said
    assert "must take rows of" in refused("word", 'takes = "tokens"')
    columns = 'takes = {"columns"}\n    vocabulary: int = 9', "data={groups: {a: texts}, columns: {x: number}}"
    load("only_columns", *columns)
    said = refused("no_tokens", *columns, "data.sequence_length=32")
    assert said.endswith("data.sequence_length: rows of columns have no tokens; leave it out")
    assert "data.rows: Slope takes columns, got tokens" in refused("columns", 'takes = {"columns"}')
    assert "data.groups: at least one group" in refused("groups", "pass", "data.groups={}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("settings={widht: 3}", "settings.widht: no constant of Slope; did you mean `width`?"),
        ("settings.scale=big", "settings.scale: Slope says that it may be searched, so it must be a number"),
        (
            "hyperparameters.width={kind: int, low: 2, high: 9}",
            "hyperparameters.width: is a constant of Slope, which may shape its module",
        ),
        (
            "hyperparameters.learning_rat={kind: float, low: 0.1, high: 1}",
            "hyperparameters.learning_rat: Slope has no such hyperparameter; did you mean `learning_rate`?",
        ),
        ("hyperparameters.scale={kind: categorical, values: [a, b]}", "the constant scale must be a number"),
        ("hyperparameters.dropout={kind: float, low: 0, high: 2}", "training.dropout must be at least 0 and"),
        ("model.layers=3", "model.layers: a class of your own does not look at it; leave it out"),
    ],
)
def test_constants_and_hyperparameters_are_checked_against_the_class(change: str, said: str) -> None:
    name = "".join(letter if letter.isalnum() else "_" for letter in change)
    assert said in refused(name, "pass", change)


def test_a_constant_without_a_default_is_required_unless_the_corpus_gives_it() -> None:
    assert "settings.depth: is required, since Slope takes it" in refused("required", "depth: int")
    assert load("given", "depth: int", "settings.depth=3").settings == {"depth": 3}
    scale = refused("searched", "wide: int\n    searched = {'wide'}", "settings.wide=[1]")
    assert "settings.wide: Slope says that it may be searched" in scale


def test_settings_are_checked_against_a_constructor_too() -> None:
    source = CLASS.replace("seed, device)", "seed, device, folder, *, depth=2)")
    Path("constructed_class.py").write_text(source)
    Path("run.yaml").write_text(OWN.replace("MODULE", "constructed_class"))
    with pytest.raises(
        InputError, match=r"settings.folder: is required, since Slope takes it and has no default"
    ):
        load_run("run.yaml")
    with pytest.raises(InputError, match=r"settings.deph: no constant of Slope; did you mean `depth`"):
        load_run("run.yaml", ["settings={folder: a, deph: 3}"])
    assert load_run("run.yaml", ["settings={folder: a, depth: 3}"]).described.constants == ("folder", "depth")


def test_only_a_class_of_ones_own_has_constants() -> None:
    Path("run.yaml").write_text(TEXT)
    with pytest.raises(InputError, match="settings: only a class of your own has it; leave it out"):
        load_run("run.yaml", ["settings.width=3"])


def test_a_class_may_declare_more_when_its_run_goes_on() -> None:
    run = load("before", "by_row = False\n    score = None")
    from shoal.search.records.directory import create

    create(run)
    again = load("after", "pass").model_copy(update={"trainable": run.trainable})
    assert same_run(again).described.by_row
