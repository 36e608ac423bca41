"""The run that is written, saved or sent on is the run that was checked."""

import json
import math
import pickle

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.policies.bayesian import Bayesian
from shoal.policies.explore import Additive, Interval, Past, Perturb, Resample, explore
from shoal.policies.population import Best, MemberState, Order
from shoal.policies.space import Categorical, Constant, Ordered, frozen
from shoal.search import notation
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.load import checked_run, dump, load_run
from shoal.search.messages import Row
from shoal.search.records import tables
from shoal.search.records.directory import open_run
from shoal.search.records.lineage import read_lineage
from tests.helpers.small_files import CLASS, OWN

# words that YAML would take for something else, and what JSON does not have
ODD = [".inf", "1e-4", "1_000", "010", "0x1f", "12:30", "2024-05-01", "yes", "null", "~", "", " a", "a: b", "#"]
ODD += [
    "=",
    "<<",
    "*a",
    "- a",
    "a #b",
    "\x85",
    "\u2028",
    "\ufeff",
    "\n",
    "'",
    '"',
    "é",
    "\U0001f600",
    "!x",
    ".",
]
words = st.sampled_from(ODD) | st.text(max_size=8)
alone = st.none() | st.booleans() | words | st.integers() | st.integers(10**30, 10**40)
alone |= st.floats(allow_nan=False) | st.sampled_from([math.inf, -math.inf, -0.0, 1e-4, 5e-324])
values = st.recursive(
    alone, lambda each: st.lists(each, max_size=3) | st.dictionaries(words, each, max_size=3), max_leaves=8
)


def run_with(value: object) -> tuple[Run, Run]:
    start = {"hyperparameters": {"given": value, "within": {"given": value}}}
    plain = {
        "name": "own",
        "trainable": "own:Own",
        "population": {"members": 1, "exploit": "none"},
        "cluster": {"broods": 1},
    }
    constant = {"kind": "constant", "value": value}
    ordered = {"kind": "ordered", "values": [value, {"another": value}]}
    searched = {"one": constant, "two": ordered, "within": {"three": constant}}
    return checked_run(plain | {"hyperparameters": searched}, "run"), checked_run(
        plain | {"starts": [start]}, "run"
    )


def same(first: object, second: object) -> bool:
    """Say whether values are equal and of the same types, which == does not ask."""
    return repr(first) == repr(second)


@given(values)
@settings(max_examples=100)
def test_a_run_reads_back_as_it_was_written(value) -> None:
    for run in run_with(value):
        again = checked_run(notation.read_yaml(dump(run), "run.yaml"), "run.yaml")
        assert again == run and same(again.model_dump(), run.model_dump())
        assert same(pickle.loads(pickle.dumps(run)).model_dump(), run.model_dump())  # as workers get it
        assert same(run.space(), again.space())


@given(values)
@settings(max_examples=200)
def test_the_state_of_a_population_comes_back_from_its_checkpoint(value) -> None:
    given = {"given": frozen(value), "within": {"given": frozen([value])}}
    past = (Interval(0, 1.0, math.nan, given, True),)
    state = (MemberState(given, 1.0, 5, 1, (1.0,), (5, 1.0), best=Best(1.0, 1, 5, given), past=past),)
    again = population.from_plain(json.loads(json.dumps(population.to_plain(state))))
    assert same(again, state)


def test_checkpoints_and_the_lineage_keep_the_types_of_values(tmp_path) -> None:
    store = Store(str(tmp_path))
    given = {"sizes": (64, (32,)), "clip": math.inf, "word": "1e-4", "large": 10**40, "none": None}
    state = (MemberState(given, 1.0),) * 2
    checkpoints.save_decisions(store, 1, {"members": population.to_plain(state)}, [1, 1])
    assert same(population.from_plain(checkpoints.load_decisions(store, 1)["members"]), state)
    tables.write_starts(store, state)
    told = {number: Row(number, round=1, step=5, score=1.0) for number in (0, 1)}
    tables.write_events(store, 1, tables.copy_events([Order(0, 1, given)], told, state))
    events = read_lineage(store)
    assert [same(event.after, given) for event in events] == [True] * 3
    assert same(events[2].before, given)


LISTS = {"ordered": Ordered([[1], [2], [3]]), "categorical": Categorical([[1], [2, math.inf], [{"a": [3]}]])}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("rule", [Perturb(), Resample(), Additive(), Bayesian()])
def test_a_rule_finds_a_list_again_that_has_been_through_a_checkpoint(name: str, rule) -> None:
    domain = LISTS[name]
    saved = json.loads(json.dumps({"x": domain.values[0]}))
    assert isinstance(saved["x"], list) and domain.contains(saved["x"])
    intervals = tuple(
        Interval(step, 0.0, 1.0 + step, json.loads(json.dumps({"x": domain.values[step % 3]})), True)
        for step in range(6)
    )
    past = Past(intervals, (), 6, 1.0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = explore(rule, {"x": domain}, saved, saved, rng, past)
        assert domain.contains(found["x"])


@pytest.mark.parametrize("value", [math.nan, [math.nan], {"a": math.nan}, b"x", {1}, np.float32(1), object()])
def test_what_text_cannot_hold_is_no_value(value) -> None:
    for domain in (lambda: Ordered((1, value)), lambda: Categorical((1, value)), lambda: Constant(value)):
        with pytest.raises(ValueError, match=r"no value can be nan|a value must be a number, a word, true"):
            domain()


def test_keys_of_values_are_words() -> None:
    assert Categorical(({1: "a"}, {2: "b"})).values == ({"1": "a"}, {"2": "b"})
    with pytest.raises(ValueError, match="from words"):
        frozen({1: "a", "1": "b"})


@given(values)
@settings(max_examples=200)
def test_words_are_put_in_quotes_where_they_must_be(value) -> None:
    written = notation.write_yaml({"x": value})
    assert same(notation.read_yaml(written, "x"), {"x": json.loads(json.dumps(value))})


@pytest.mark.parametrize("word", ["1e-4", "1E5", "08", "010"])
def test_a_word_that_only_our_reader_takes_for_a_number_is_in_quotes(word: str) -> None:
    assert notation.write_yaml({"x": word}) == f"x: '{word}'\n" and yaml.safe_load(f"x: '{word}'") == {
        "x": word
    }


def test_a_merge_with_one_key_changed_is_no_repetition() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: [*b, *a], z: 4}\n"
    assert notation.read_yaml(text, "f")["c"] == {"x": 1, "y": 3, "z": 4}


def test_many_values_behind_few_aliases_are_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InputError, match=r"f:6: with its aliases it holds itself, more than 1000000 values"):
        notation.read_yaml("\n".join(lines), "f")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("1e-4", 1e-4),
        ("1_000", 1000),
        (".inf", math.inf),
        ("true", True),
        ("", None),
        ("~", None),
        ("~/runs", "~/runs"),
        ("runs/try #3", "runs/try #3"),
        ("/data/C #1/a.jsonl", "/data/C #1/a.jsonl"),
        ("a: b", "a: b"),
        ("- a", "- a"),
        ("*x", "*x"),
        ("@x", "@x"),
        ("%x", "%x"),
        ("`x`", "`x`"),
        ("!x", "!x"),
        ("|", "|"),
        ("---", "---"),
        ("...", "..."),
        ("\t", "\t"),
        ("a\nb", "a\nb"),
        ("=", "="),
        ("'010'", "010"),
        ('"a #b"', "a #b"),
        ("{a: 1,\n b: [2, x y]}", {"a": 1, "b": [2, "x y"]}),
        ('{"a":"b#c"}', {"a": "b#c"}),
    ],
)
def test_a_value_of_the_command_line_is_as_it_is_written(text: str, value) -> None:
    assert same(notation.read_change(text), value)


def test_a_moved_run_keeps_what_json_and_yaml_readers_lose(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_class.py").write_text(CLASS)
    (tmp_path / "run.yaml").write_text(OWN.replace("MODULE", "odd_class"))
    changes = ["hyperparameters.clip={kind: ordered, values: [0.5, 1.0, .inf]}"]
    changes += ["hyperparameters.word={kind: constant, value: '1e-4'}"]
    changes += ["hyperparameters.sizes={kind: categorical, values: [[32], [64, 32]]}"]
    run = load_run("run.yaml", changes)
    Store(f"{tmp_path}/runs/a").write("run.yaml", dump(run))
    (tmp_path / "runs/a").rename(tmp_path / "runs/b")
    again, store = open_run("runs/b")
    assert again == run.model_copy(update={"directory": f"{tmp_path}/runs/b"})
    assert store.uri == again.directory  # also workers find it, who have another working folder
    space = again.space()
    assert space["clip"] == Ordered((0.5, 1.0, math.inf)) and space["word"] == Constant("1e-4")
    assert space["sizes"].values == ((32,), (64, 32))


def test_places_take_variables_and_read_back(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCH", f"{tmp_path}/a$b")
    (tmp_path / "toy.yaml").write_text("name: toy\ndata: {groups: {a: installed, b: $SCRATCH/text}}\n")
    searched = "hyperparameters.clip={kind: float, low: 0.5, high: 1}"
    run = load_run("toy.yaml", ["directory=${SCRATCH}/run", "data.corpus=cost$$", searched])
    assert run.directory == f"{tmp_path}/a$b/run" and run.data.corpus == f"{tmp_path}/cost$"
    assert run.data.groups == {"a": "installed", "b": f"{tmp_path}/a$b/text"}
    assert checked_run(notation.read_yaml(dump(run), "run.yaml"), "run.yaml") == run
    Store(run.directory).write("run.yaml", dump(run))
    assert open_run(run.directory)[0] == run
    assert load_run("toy.yaml", ["directory=s3://bucket/$SCRATCH", searched]).directory.startswith(
        "s3://bucket/"
    )
