"""A class of the user's own scores rows: where it is found, what it may return, and when it scores anew."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.selection.scorers import own_column
from shoal.search.selection.select import select_corpus
from tests.search.selection.test_select import places, run_of

__all__ = ["places"]  # a fixture
MODULE = "own_scores_of_test"
SELECTION = {
    "policy": {"kind": "top", "score": "s"},
    "rows": 5,
    "scores": [{"kind": "own", "made": f"{MODULE}:Own"}],
}


def write_class(folder: Path, returned: str) -> None:
    head = "class Own:\n    times = 0\n\n    def score(self, rows):\n        Own.times += 1\n"
    (folder / f"{MODULE}.py").write_text(f"{head}        return {returned}\n")
    sys.modules.pop(MODULE, None)


@pytest.fixture
def run(tmp_path, places) -> Run:
    return run_of(tmp_path, places, SELECTION).model_copy(update={"code": str(tmp_path)})


def test_a_class_that_was_changed_scores_anew(tmp_path, run) -> None:
    write_class(tmp_path, "{'s': [float('nan')] * len(rows)}")
    with pytest.raises(InputError, match=r"rows have no finite s .* mend the scorer"):
        select_corpus(run, print)
    write_class(tmp_path, "{'s': rows[:, 3].astype(float)}")
    assert select_corpus(run, print).record["kept"] == 5
    lines: list[str] = []
    select_corpus(run, lines.append)
    assert not any("scored" in line for line in lines)  # it is what it was


@pytest.mark.parametrize(
    "returned",
    ["{'s': rows[:, :Own.times].astype(float)}", "{'s': rows[:, 3], f'more_{Own.times}': rows[:, 3]}"],
)
def test_columns_that_differ_between_files_are_one_clear_line(tmp_path, run, returned: str) -> None:
    write_class(tmp_path, returned)
    with pytest.raises(InputError, match=r"scores.0: score\(rows\) must return the same columns for all rows"):
        select_corpus(run, print)


def test_a_class_that_raises_is_one_clear_line_with_its_place(tmp_path, run) -> None:
    write_class(tmp_path, "{'s': rows['nowhere']}")
    with pytest.raises(InputError, match=rf"made: score of Own failed: {MODULE}.py:6: IndexError"):
        select_corpus(run, print)
    write_class(tmp_path, "__import__('sys').exit(3)")
    with pytest.raises(InputError, match=rf"made: score of Own failed: {MODULE}.py:6: SystemExit: 3"):
        select_corpus(run, print)
    (tmp_path / f"{MODULE}.py").write_text("import sys\n\nsys.exit(3)\n")
    sys.modules.pop(MODULE, None)
    with pytest.raises(InputError, match=rf"Own cannot be made: {MODULE}.py:3: SystemExit: 3"):
        select_corpus(run, print)
    write_class(tmp_path, "{'s': __import__('torch').ones(len(rows), requires_grad=True)}")
    with pytest.raises(InputError, match=r"column s must hold a number, .* got a Tensor: Can't call numpy"):
        select_corpus(run, print)


def test_whole_numbers_in_one_file_and_others_in_the_next_are_one_column() -> None:
    found = [own_column("selection.scores.0", "s", values, 2) for values in ([1, 2], [1.5, 2.0], [True, False])]
    assert {each.dtype for each in found} == {np.dtype(np.float64)}


@pytest.mark.parametrize("changes", [{}, {"refine": {"made": f"{MODULE}:Own", "base": "best"}}])
def test_the_class_is_looked_for_beside_the_file(
    tmp_path, places, monkeypatch, changes: dict[str, Any]
) -> None:
    values = {
        "name": "chosen",
        "data": {"corpus": str(tmp_path / "corpus"), "groups": {"sea": places["sea"]}, "sequence_length": 128},
        "hyperparameters": {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.01}},
        **(changes or {"selection": SELECTION}),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_run(str(tmp_path / "run.yaml")).code == str(tmp_path)
    assert load_run(str(tmp_path / "run.yaml"), [f"code={elsewhere}"]).code == str(elsewhere)
    with pytest.raises(InputError, match="code: only a class of your own has it"):
        plain = {key: value for key, value in values.items() if key not in {"selection", "refine"}}
        (tmp_path / "run.yaml").write_text(json.dumps(plain))
        load_run(str(tmp_path / "run.yaml"), [f"code={elsewhere}"])
