"""Every key of a run's file has a meaning, and the reference in docs says what the code says."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from shoal.search.errors import InputError
from shoal.search.front.keys import all_keys, explain_key, reference_page
from shoal.search.front.schema import run_schema
from shoal.search.notation import read_yaml

ROOT = Path(__file__).parents[3]
FILES = sorted(ROOT.glob("examples/*.yaml"))
NEW = "write it again with `make reference`"


@pytest.fixture(scope="module")
def schema() -> dict:
    return run_schema()


def test_every_key_has_a_meaning() -> None:
    assert [f"{key.path} {key.kind}" for key in all_keys() if not key.meaning] == []


def test_the_pages_are_what_the_code_says(schema) -> None:
    assert (ROOT / "docs/keys.md").read_text() == reference_page(), NEW
    assert json.loads((ROOT / "docs/run.schema.json").read_text()) == schema, NEW


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_examples_keep_to_the_schema_and_name_it(file: Path, schema) -> None:
    text = file.read_text()
    assert text.startswith("# yaml-language-server: $schema=../docs/run.schema.json\n")
    jsonschema.validate(read_yaml(text, file.name), schema)


@pytest.mark.parametrize(
    "change",
    [
        "{population: {membres: 3}}",
        "{population: {exploit: truncaton}}",
        "{training: {steps: many}}",
        "{seed: -1}",
    ],
)
def test_the_schema_refuses_what_shoal_refuses(change: str, schema) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x", **yaml.safe_load(change)}, schema)


@pytest.mark.parametrize("key", ["objective.masked.share", "objective.masked", "selection.scores.loss.model"])
def test_a_key_of_a_list_is_explained_under_its_kind_as_errors_name_it(key: str) -> None:
    kind = key.split(".")[-1 if key.count(".") == 1 else -2]
    said = explain_key(key)
    assert ".0." in said[0] and f"(of {kind})" in said[0], said[0]


@pytest.mark.parametrize("key", ["starts", "root", "schedule", "data.tokenizer", "population.interval"])
def test_a_key_is_explained(key: str) -> None:
    said = explain_key(key)
    assert said[0].startswith(f"{key}: ") and len(said[0]) > len(key) + 5


def test_a_last_name_alone_is_enough() -> None:
    lines = explain_key("fraction")
    assert lines[0].startswith("population.exploit.fraction (of truncation): ")
    assert lines[1] == "  a number; default 0.25"


def test_a_choice_lists_its_kinds() -> None:
    assert any(line.strip().startswith("tournament: ") for line in explain_key("population.exploit"))
    assert any(line.strip().startswith("dice: ") for line in explain_key("objective"))


def test_a_searched_number_is_explained_as_the_setting_that_it_replaces() -> None:
    said = explain_key("hyperparameters.learning_rate")
    assert any(line.startswith("training.learning_rate: ") for line in said)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"population.intervall: no such key; did you mean `population.interval`"
    ):
        explain_key("population.intervall")
