"""Preference members out of a file, without Ray, and what such a file must say."""

import io
import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import yaml
from rich.console import Console

from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.members.build import build_members
from shoal.search.runs.dry import first_files, try_out
from shoal.search.runs.population import prepare_run
from shoal.trainables.handover import hand_in, handed_out
from tests.helpers.pretrained import causal_run

WORDS = ["red", "green", "blue", "black"]


def preference_run(folder: Path, *changes: str):
    pairs = [
        {"prompt": f"{n} times", "chosen": WORDS[n % 4] * 2, "rejected": WORDS[(n + 1) % 4]} for n in range(80)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(pair) for pair in pairs))
    values = causal_run(str(folder), groups={"pairs": f"{folder}/pairs.jsonl"}, trainable="preference")
    values["data"] |= {"format": "preference", "validation": 0.2, "test": 0.2}
    values["hyperparameters"]["objective"] = {"beta": {"kind": "float", "low": 0.05, "high": 0.5, "log": True}}
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return load_run(str(folder / "run.yaml"), changes)


def test_a_preference_member_is_tried_from_a_file(tmp_path) -> None:
    said = io.StringIO()
    try_out(preference_run(tmp_path), Console(file=said, width=300))
    assert "PreferenceModel" in said.getvalue() and "displacement_pairs" in said.getvalue()
    assert "it trains on as its donor does" in said.getvalue()


def test_a_whole_model_is_compared_with_the_one_that_it_began_with(tmp_path) -> None:
    rates = "hyperparameters={learning_rate: {kind: float, low: 0.001, high: 0.03, log: true}}"
    changes = ["model.adapter=null", rates, "price=0"]
    run = prepare_run(preference_run(tmp_path, *changes), Console(file=io.StringIO()))
    made = build_members(run, {0: {}, 1: {}}, streams=first_files)
    assert made[0].template is made[1].template and made[0].evaluate()[0] == 0.5
    made[0].train(3)
    assert made[0].evaluate()[0] != 0.5 and made[1].evaluate()[0] == 0.5
    hand_in(made[1].load, handed_out(made[0].state), {})
    assert made[0].train(1) == made[1].train(1)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("objective=dice", "objective.dice: needs logits, which the preference does not give"),
        ("objective={kind: dpo, beta: 0}", "objective.dpo.beta: must be above 0"),
        ("data.format={kind: instruction, prompt: prompt, answer: chosen}", "data.rows: the preference takes"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, change: str, wanted: str) -> None:
    with pytest.raises(InputError) as raised:
        preference_run(tmp_path, change)
    assert wanted in str(raised.value)
