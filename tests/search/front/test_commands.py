"""The commands around a run, as a user meets them."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from shoal.search.cli import run_command_line
from shoal.search.front import doctor
from shoal.search.front.completion import complete_change, complete_directory
from tests.helpers.directories import TOY, written


@pytest.fixture
def shoal(monkeypatch, capsys, tmp_path):
    """Return the command line as a function: arguments in, exit code and what was printed out."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["shoal", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command_line()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    return command


@pytest.mark.parametrize("command", ["explain", "schema", "init", "plan", "doctor", "compare"])
def test_help_has_an_example(command: str, shoal) -> None:
    code, said = shoal(command, "--help")
    assert code == 0 and f"Example: shoal {command}" in said


def test_explain_prints_a_key_and_its_default(shoal) -> None:
    code, said = shoal("explain", "population.interval")
    assert code == 0
    assert said.splitlines()[0].startswith("population.interval: steps from one report to the next")
    assert said.splitlines()[1] == "  a whole number from 1; default 20"


def test_init_writes_a_file_once(shoal, tmp_path) -> None:
    code, said = shoal("init", "own", "--name", "mine")
    assert (code, sorted(file.name for file in tmp_path.glob("mine*"))) == (0, ["mine.py", "mine.yaml"])
    assert "next: `shoal validate mine.yaml`" in said
    code, said = shoal("init", "own", "--name", "mine")
    assert (code, said.strip()) == (2, "error: mine.yaml is there already; give another --name.")


def test_doctor_names_extras_that_there_are() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    given = project["project"]["optional-dependencies"]
    for package, extra in doctor.EXTRAS.items():
        assert any(named.startswith(package) for named in given[extra]), (package, extra)


def test_doctor_looks_at_everything(shoal, monkeypatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code, said = shoal("doctor")
    for about in ("Python", "ray", "CPUs", "GPUs", "memory", "open files", "this folder", "Ray"):
        assert any(f" {about}: " in line for line in said.splitlines()), (about, said)
    assert code == ("error" in said)


def test_doctor_names_what_is_in_the_way(shoal, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(doctor.LEAST_VERSIONS, "a-package-that-is-not-there", (1,))
    (tmp_path / "shoal.py").write_text("")
    code, said = shoal("doctor")
    assert code == 1
    assert "error a-package-that-is-not-there: is not installed; 1 or newer is needed" in said
    assert "shoal.py: hides Shoal from its workers" in said


def test_memory_is_what_the_control_group_leaves(tmp_path) -> None:
    table = tmp_path / "meminfo"
    table.write_text("MemTotal:  8000 kB\nMemAvailable:  4000 kB\n")
    assert doctor.memory_left(str(table), str(tmp_path)) == 4000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert doctor.memory_left(str(table), str(tmp_path)) == 2000000
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.memory_left(str(table), str(tmp_path)) == 4000 * 1024


def test_the_shell_completes_run_directories_and_keys(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/demo", "runs/other", "texts"):
        Path(name).mkdir(parents=True)
    Path("runs/demo/run.yaml").write_text("name: demo\n")
    assert complete_directory("") == ["runs/", "texts/", "runs/demo", "runs/other/"] or set(
        complete_directory("")
    ) >= {"runs/demo", "texts/"}
    assert complete_directory("runs/d") == ["runs/demo"]
    assert complete_directory("nowhere/") == []
    assert complete_change("population.int") == ["population.interval="]


def test_compare_shows_scores_settings_and_curves(shoal, tmp_path) -> None:
    written(tmp_path / "one", 4)
    written(tmp_path / "two", 4, "seed=9", "population.explore=resample")
    code, said = shoal("compare", "one", "two", "--to", "page.html")
    assert code == 0, said
    assert "population.explore.kind" in said and "seed" in said
    assert "training.steps" not in said
    page = (tmp_path / "page.html").read_text()
    assert 'id="best-figure"' in page and "Settings that differ" in page


def test_report_of_several_runs_has_them_side_by_side(shoal, tmp_path) -> None:
    written(tmp_path / "one", 4)
    written(tmp_path / "two", 4, "seed=9", "name=other")
    code, said = shoal("report", "one", "two", "--to", "page.html")
    assert code == 0 and said.split() == ["report:", f"{tmp_path}/page.html"]
    page = (tmp_path / "page.html").read_text()
    figures = re.findall(r'class="plot" id="([^"]+)"', page)
    assert figures == ["best", "schedule-0", "schedule-1"]
    for figure in re.findall(r"<figure>.*?</figure>", page, re.S):
        assert '<th scope="col">toy</th><th scope="col">other</th>' in figure, "a column of its table for each"
    assert page.count("<b>Member ") == 2
    assert shoal("report", "one")[1].split() == ["report:", f"{tmp_path}/one/report.html"]


def test_compare_needs_two_runs(shoal, tmp_path) -> None:
    written(tmp_path / "one", 1)
    assert shoal("compare", "one")[1].strip() == "error: DIR: two to 6 run directories can be compared, got 1."
    assert "is not a run directory" in shoal("compare", "one", "nowhere")[1]


def test_plan_counts_before_anything_starts(shoal) -> None:
    code, said = shoal("plan", TOY)
    assert code == 0
    assert said.splitlines()[0] == "toy: 4 members, 200 steps each, a report every 4 steps"
