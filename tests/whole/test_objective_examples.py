"""The examples of named objectives, on the rows that their scripts make on the spot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT, shoal

EXAMPLES = {
    "examples/classifier.yaml": "examples/pictures.py",
    "examples/embedder.yaml": "examples/pairs.py",
    "examples/preference.yaml": "examples/answers.py",
}


def made(file: str, folder: Path) -> str:
    """Write an example's rows below a folder; return the path of its file."""
    subprocess.run([sys.executable, str(ROOT / EXAMPLES[file])], cwd=folder, check=True)
    return str(ROOT / file)


@pytest.mark.parametrize("file", EXAMPLES)
def test_an_example_fits_the_rows_that_its_script_makes(file: str, tmp_path) -> None:
    assert "members" in shoal("validate", "--dry-run", made(file, tmp_path), folder=tmp_path)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES)
def test_an_example_trains_and_ends_with_a_score(file: str, tmp_path) -> None:
    changes = ["training.steps=40", "training.warmup=2", "population.interval=10", "population.members=5"]
    shoal("run", made(file, tmp_path), "directory=runs/example", *changes, folder=tmp_path)
    found = json.loads((tmp_path / "runs/example/summary.json").read_text())
    assert found["test_score"] > 0


def test_pairs_are_made_where_python_lacks_a_module(monkeypatch, capsys) -> None:
    from examples import pairs

    monkeypatch.setitem(sys.modules, "turtle", None)  # Debian's own Python has no screen's library
    assert pairs.imported("turtle") is None and "left out turtle" in capsys.readouterr().err
