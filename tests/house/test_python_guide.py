"""docs/python.md says what there is: its commands, the parts of a result, and a search that can be checked."""

import re
from pathlib import Path

import pytest
import yaml

import shoal
from shoal.search.cli import app
from shoal.search.front.result import Result, TrainedMember
from tests.helpers.small_files import TOY

GUIDE = (Path(__file__).parents[2] / "docs/python.md").read_text()


def test_every_command_of_the_guide_is_one() -> None:
    named = set(re.findall(r"^\| `shoal (\w+)", GUIDE, re.MULTILINE))
    known = {each.name or each.callback.__name__ for each in app.registered_commands}
    assert named == {"init", "explain", "schema", "plan", "doctor", "compare", "track"} and named <= known


def test_every_part_of_a_result_that_the_guide_names_is_there() -> None:
    rows = re.findall(r"^\| (`.+?) \| ", GUIDE, re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`(\w+)", row) if name not in ("shoal",)}
    assert {"best", "metrics", "figures", "resume"} <= names
    missing = [name for name in names if not hasattr(Result, name) and name != "run"]
    assert missing == []
    for name in ("schedule", "weights", "load", "hyperparameters"):
        assert hasattr(TrainedMember, name) and f"`{name}" in GUIDE


FILES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]


def test_the_grid_of_the_guide_has_a_point_for_each_member() -> None:
    (given,) = [each for each in FILES if "population" in each]
    run = shoal.validate({"name": "x", "data": {"groups": {"code": "installed"}}, **given})
    assert run.population.start == "grid" and run.population.members == 6


def test_the_trackers_of_the_guide_are_taken(tmp_path) -> None:
    pytest.importorskip("mlflow")
    (given,) = [each for each in FILES if "track" in each]
    (tmp_path / "run.yaml").write_text(f"{TOY}{yaml.safe_dump(given)}")
    kinds = [each.kind for each in shoal.validate(tmp_path / "run.yaml").track]
    assert kinds == ["tensorboard", "mlflow"] and all(f"`{kind}`" in GUIDE for kind in [*kinds, "wandb"])


def test_the_stop_of_the_guide_is_taken(tmp_path) -> None:
    given = re.search(r"`stop: (\{.+?\})`", GUIDE)
    assert given is not None
    (tmp_path / "run.yaml").write_text(f"{TOY}stop: {given[1]}\n")
    assert shoal.validate(tmp_path / "run.yaml").stop.patience == 5
