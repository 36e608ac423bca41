"""What a finished run proposes to do next are commands that there are."""

import shlex

import pytest
from typer.main import get_command

from shoal.search.cli import app
from shoal.search.load import load_run
from shoal.search.runs.closing import next_steps
from tests.helpers.directories import TOY

COMMANDS = get_command(app).commands


@pytest.mark.parametrize("changes", [{}, {"trainable": "causal_lm"}])
def test_every_next_step_is_a_command_with_its_options(tmp_path, changes) -> None:
    run = load_run(TOY, [f"directory={tmp_path}/a run"]).model_copy(update=changes)
    steps = next_steps(run)
    assert len(steps) == 4
    for line, _ in steps:
        program, name, *words = shlex.split(line.partition(" > ")[0])
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert program == "shoal" and {word for word in words if word.startswith("--")} <= options
        assert any(f"{tmp_path}/a run" in word for word in words), "a place with a space is one word"


def test_a_run_is_called_by_its_place_below_this_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = load_run(TOY, [f"directory={tmp_path}/runs/toy"])
    assert next_steps(run)[0][0] == "shoal report runs/toy OTHER"


def test_a_run_that_no_run_can_repeat_has_no_replay(tmp_path) -> None:
    run = load_run(TOY, [f"directory={tmp_path}/toy"])
    assert not [line for line, _ in next_steps(run, ended=True) if "replay" in line]
