"""A class of the user's own: where it is looked for, and what one that raises does to its run."""

import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from shoal.cluster.storage import Store
from shoal.search import cli, load, traces
from shoal.search.config.run import Run
from shoal.search.driver.population import failed
from shoal.search.errors import InputError
from shoal.search.load import dump, load_run
from shoal.search.members.build import build_members
from shoal.search.members.own_class import own_class
from shoal.search.members.unmade import Unmade
from shoal.search.records.directory import open_run
from shoal.search.runs.population import prepare_run
from shoal.search.worker.teams import teams
from tests.helpers.small_files import CLASS, OWN, TOY

PICKY = CLASS.replace(
    "self.chosen, self.trained = hyperparameters, 0",
    'assert hyperparameters["rate"] < 0.05, "too fast"\n        self.chosen, self.trained = hyperparameters, 0',
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "200")


def project(name: str, module: str, source: str = CLASS, *changes: str) -> Run:
    """Write a folder with a class and a file of a run, and return the run as it is read from outside."""
    Path(name).mkdir()
    Path(f"{name}/{module}.py").write_text(source)
    Path(f"{name}/run.yaml").write_text(OWN.replace("MODULE", module))
    return load_run(f"{name}/run.yaml", changes)


def test_a_class_is_found_beside_the_file_and_by_who_goes_on_elsewhere(tmp_path, monkeypatch) -> None:
    run = project("p", "beside_class")
    assert run.code == f"{tmp_path}/p" and run.directory == f"{tmp_path}/runs/own"
    Store(run.directory).write("run.yaml", dump(run))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", [each for each in sys.path if "pytest-of" not in each])
    sys.modules.pop("beside_class")
    again, _ = open_run("../runs/own")
    assert own_class(again.trainable, again.code).__name__ == "Slope"


def test_the_file_beside_goes_before_one_of_the_working_folder(tmp_path) -> None:
    Path("two_classes.py").write_text("class Slope: pass\n")
    run = project("p", "two_classes")
    found = own_class(run.trainable, run.code)
    assert sys.modules[found.__module__].__file__ == f"{tmp_path}/p/two_classes.py"


@pytest.mark.parametrize("name", ["search", "cluster", "policies", "trainables"])
def test_a_file_may_have_the_name_of_a_package_of_ours(name: str, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        run = project("p", name)
        assert sys.modules[own_class(run.trainable, run.code).__module__].__file__.endswith(f"/p/{name}.py")
    finally:
        sys.modules.pop(name)


def test_what_a_module_prints_is_not_in_the_configuration(monkeypatch) -> None:
    Path("printing_class.py").write_text("print('hello')\n" + CLASS)
    Path("run.yaml").write_text(OWN.replace("MODULE", "printing_class"))
    said = CliRunner().invoke(cli.app, ["validate", "run.yaml"])
    assert said.exit_code == 0 and said.stdout.startswith("name: own")


def test_a_class_that_is_only_begun_is_noted_and_does_not_run() -> None:
    begun = CLASS[: CLASS.index("    def train")]
    run = project("p", "begun_class", begun)
    said = CliRunner().invoke(cli.app, ["validate", "p/run.yaml"])
    assert said.exit_code == 0 and said.stdout == dump(run)
    assert "note: trainable: p/begun_class.py:4: Slope must have the method train(steps)" in said.stderr
    with pytest.raises(InputError, match=r"Slope must have the method train\(steps\), but has none"):
        prepare_run(run, Console())


NETWORK = """\
from shoal.trainables.network import Network


class Slope(Network):
    def __init__(self, recipe, hyperparameters, seed, device): ...
    def build(self): ...
    def loss(self, module, batch, numbers): ...
    def score(self, module, rows): ...
"""


def test_a_network_of_ones_own_has_the_bounds_of_what_it_inherits() -> None:
    high = "hyperparameters.dropout={kind: float, low: 0, high: 2}"
    with pytest.raises(
        InputError, match=r"hyperparameters.dropout: training.dropout must be at least 0 and below 1"
    ):
        project("p", "network_class", NETWORK, high)
    project("q", "free_class", CLASS, high)  # what dropout means to this one, it alone knows


def test_a_configuration_shows_what_counts_and_reads_back() -> None:
    run = project("p", "shown_class")
    Path("again.yaml").write_text(dump(run))
    text = Path("again.yaml").read_text()
    assert not {"data:", "model:"} & set(text.splitlines()) and "batch:" not in text
    assert load_run("again.yaml") == run


def test_a_run_directory_of_before_may_name_every_key() -> None:
    run = project("p", "before_class")
    whole = dump(run) + "data: {sequence_length: 128}\nmodel: {layers: 4}\n"
    Store(run.directory).write("run.yaml", whole.replace("steps: 40", "steps: 40\n  batch: 16"))
    assert open_run(run.directory)[0].training.steps == 40


def test_a_member_whose_making_raises_has_failed_alone_until_it_is_a_clone() -> None:
    run = project("p", "picky_class", PICKY)
    members = build_members(run, {0: {"rate": 0.01}, 1: {"rate": 0.09}})
    good, bad = members.values()
    assert isinstance(bad, Unmade) and bad.trained == 0 and not bad.state()["weights"]
    rows = {number: row for team in teams(members, None) for number, row in team.train(10).items()}
    assert rows[0].score == 0 and not rows[0].error
    assert np.isnan(rows[1].score) and "too fast" in rows[1].error and "picky_class.py" in rows[1].error
    bad.load(good.state(), {"rate": 0.08})  # still too fast
    with pytest.raises(AssertionError, match="too fast"):
        bad.train(1)
    bad.load(bad.state(), {"rate": 0.08})  # as after a resume
    bad.load(good.state(), {"rate": 0.02})
    assert bad.trained == 10 and bad.train(5) == 0.0 and bad.state()["trained"] == 15
    assert bad.evaluate("test") == (0.0, {})


TRACE = """\
Traceback (most recent call last):
  File "/x/site-packages/ray/thing.py", line 3, in call
    raise as_it_is
  File "/home/me/nets.py", line 17, in train
    self.values.index(x)
    ^^^^^^^^^^^^^^^^^^^^
  File "/x/lib/python3.11/site-packages/numpy/core.py", line 5, in index
ValueError: tuple.index(x): x not in tuple
and more of it
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no room left", "no room left"),
        ("one\n two\n", "one two"),
        (TRACE, "nets.py:17: ValueError: tuple.index(x): x not in tuple"),
        (
            f"all members have failed by step 4.\n{TRACE}",
            "all members have failed by step 4: nets.py:17: ",
        ),
        (f"\x1b[36mray::Brood.step()\x1b[39m (pid=3)\n{TRACE[35:]}", "nets.py:17: ValueError: tuple.index(x)"),
        ('Traceback (most recent call last):\n  File "<frozen x>", line 1, in f\nKeyError\n', "KeyError"),
        ("", ""),
    ],
)
def test_a_reason_is_one_line(text: str, said: str) -> None:
    line = traces.in_one_line(text)
    assert line.startswith(said) and "\n" not in line and "\x1b" not in line and "more of it" not in line


def test_a_run_that_failed_says_so_in_one_line_and_keeps_the_trace(tmp_path) -> None:
    Path("toy.yaml").write_text(TOY)
    run = load_run("toy.yaml", ["directory=my runs/toy"])
    said = str(failed(run, Store(run.directory), TRACE))
    assert said == (
        f"nets.py:17: ValueError: tuple.index(x): x not in tuple. The whole trace is in "
        f"{run.directory}/failures/run.txt. Continue with `shoal resume '{tmp_path}/my runs/toy'`."
    )
    assert Path(run.directory, "failures/run.txt").read_text() == TRACE


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError("by none"), 1), (InputError("bad"), 2)])
def test_whatever_is_raised_is_one_line(error, code, monkeypatch, capsys) -> None:
    def raising(*_: object) -> None:
        raise error

    Path("toy.yaml").write_text(TOY)
    monkeypatch.setattr(load, "load_run", raising)
    monkeypatch.setattr(sys, "argv", ["shoal", "validate", "toy.yaml"])
    with pytest.raises(SystemExit) as ended:
        cli.run_command_line()
    said = capsys.readouterr().err
    assert ended.value.code == code and said.count("\n") == 1 and "Traceback" not in said
    if code == 1:
        assert said.startswith("failed: test_own_class.py:") and "ZeroDivisionError: by none. The whole" in said
        assert "by none" in Path(said.rpartition(" in ")[2].strip().rstrip(".")).read_text()


def test_commands_that_are_printed_can_be_pasted(monkeypatch, capsys) -> None:
    Path("toy.yaml").write_text(TOY)
    run = load_run("toy.yaml", ["directory=runs/my toy"])
    Store(run.directory).write("run.yaml", dump(run))
    monkeypatch.setattr(sys, "argv", ["shoal", "run", "toy.yaml", "directory=runs/my toy"])
    with pytest.raises(SystemExit):
        cli.run_command_line()
    assert f"`shoal resume '{run.directory}'`" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["shoal", "replay", "runs/my toy"])
    with pytest.raises(SystemExit):
        cli.run_command_line()
    assert "`shoal resume 'runs/my toy'`" in capsys.readouterr().err
