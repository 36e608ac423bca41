"""The command line as a user meets it: exit codes, one clear message, never a stack trace."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from shoal.cluster.storage import Store
from shoal.search.cli import run_command_line

COMMANDS = ("run", "validate", "corpus", "resume", "report", "export", "status")
ROOT = Path(__file__).parents[3]
TOY = str(ROOT / "examples/toy.yaml")


class Said(NamedTuple):
    code: int
    out: str
    error: str


@pytest.fixture
def shoal(monkeypatch, capsys):
    """Return the command line as a function: arguments in, exit code and what was printed out."""
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["shoal", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command_line()
        return Said(ended.value.code or 0, *capsys.readouterr())

    return command


@pytest.fixture
def refused(shoal):
    def command(*arguments: str) -> str:
        said = shoal(*arguments)
        assert said.code == 2, said
        assert "Traceback" not in said.error
        return said.error

    return command


def test_the_command_itself_ends_with_the_exit_code(tmp_path) -> None:
    program = [
        sys.executable,
        "-c",
        "from shoal.search.cli import run_command_line; run_command_line()",
        "resume",
        str(tmp_path),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path} is not a run directory: it has no run.yaml.\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, shoal) -> None:
    said = shoal(command, "--help")
    assert said.code == 0
    assert f"Example: shoal {command}" in said.out


def test_validate_prints_the_resolved_run(shoal) -> None:
    said = shoal("validate", TOY, "seed=11")
    assert said.code == 0
    assert yaml.safe_load(said.out)["seed"] == 11


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("validate", TOY, "population.membres=3"), "did you mean `members`?"),
        (("run", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("run", TOY, "population.members=1", "cluster.broods=1"), "at least 2 members"),
        (("resume", str(ROOT)), "is not a run directory"),
        (("report", str(ROOT)), "is not a run directory"),
        (("export", "nowhere"), "is not a run directory"),
        (("status", "nowhere"), "is not a run directory"),
        (("run", TOY, "directory=/proc/nothing/here"), "cannot be written"),
        (("launch",), "No such command"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments: tuple[str, ...], said: str, refused) -> None:
    assert said in refused(*arguments)


def test_a_directory_that_holds_a_run_is_refused(tmp_path, refused) -> None:
    Store(str(tmp_path)).write("run.yaml", "name: other\ntrainable: toy\n")
    assert "already holds a run" in refused("run", TOY, f"directory={tmp_path}")


@pytest.mark.parametrize(("version", "age"), [(9, "a newer"), (1, "an older")])
def test_a_run_of_another_format_is_refused(tmp_path, refused, version: int, age: str) -> None:
    Store(str(tmp_path)).write("run.yaml", f"name: other\nformat: {version}\n")
    assert f"written by {age} Shoal" in refused("resume", str(tmp_path))


def test_a_run_without_a_checkpoint_cannot_be_exported(tmp_path, shoal, refused) -> None:
    Store(str(tmp_path)).write("run.yaml", shoal("validate", TOY).out)
    assert "no checkpoint yet" in refused("export", str(tmp_path))


def test_a_corpus_smaller_than_a_batch_and_a_group_without_rows_are_named(tmp_path, refused) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for i in range(40):
        (text / f"{i}.txt").write_text(f"document {i} " * 40)
    base = [
        str(ROOT / "examples/demo.yaml"),
        f"directory={tmp_path}/run",
        f"data.corpus={tmp_path}/corpus",
        f"data.groups={{text: '{text}'}}",
        "data.validation=0.2",
        "data.test=0.2",
    ]
    said = refused("run", *base, "training.batch=4096")
    assert "training.batch: must be at most the corpus's" in said
    assert "data.memory_megabytes: every worker holds" in refused("run", *base, "data.memory_megabytes=0.001")
    empty = tmp_path / "empty"
    empty.mkdir()
    other = [*base[:2], f"data.corpus={tmp_path}/other", f"data.groups={{nothing: '{empty}'}}"]
    assert "nothing" in refused("run", *other)


def test_status_of_a_run_whose_driver_is_gone_says_how_to_go_on(tmp_path, shoal) -> None:
    place = tmp_path / "a run"
    store = Store(str(place))
    store.write("run.yaml", shoal("validate", TOY).out)
    store.write_json("summary.json", {"status": "running"})
    found = {"epoch": 1, "owner": "x", "time": 0.0, "machine": "gone", "process": 1, "started": 1}
    store.write_json("lease.json", found)
    said = shoal("status", str(place))
    assert said.code == 0
    assert f"{place}: stopped, since its driver is gone; go on with `shoal resume '{place}'`" in said.out
    store.write_json("summary.json", {"status": "interrupted"})
    assert "stopped" not in shoal("status", str(place)).out


def test_status_without_runs_says_so(tmp_path, monkeypatch, refused) -> None:
    monkeypatch.chdir(tmp_path)
    assert "holds no run" in refused("status")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_on_the_run_directory_is_named(tmp_path, refused) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "cannot be written: Permission denied" in refused("run", TOY, f"directory={locked}/run")
