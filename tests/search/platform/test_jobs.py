"""Submitting jobs, without a cluster: what is sent, what is refused, what a retry does."""

import json
import os
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from rich.console import Console

from shoal.cluster import lease
from shoal.cluster.package import PackageTooLarge, files, pack_folder
from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.driver.scheduler import PopulationScheduler
from shoal.search.errors import InputError, RunFailed
from shoal.search.load import load_run
from shoal.search.platform import jobs
from shoal.search.platform.job_commands import pairs
from shoal.search.records import directory
from shoal.search.runs import population as running
from tests.search.driver.test_conductor import conductor, reports  # noqa: F401 - fixture
from tests.search.platform.test_cli import TOY, refused, shoal  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[3]
DEMO = str(ROOT / "examples/demo.yaml")
QUIET = Console(quiet=True)


def tree(folder: Path, **contents: str) -> Path:
    for name, text in contents.items():
        place = folder / name.replace("__", "/").replace("_DOT_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


def test_a_package_leaves_out_what_ignore_files_name(tmp_path) -> None:
    folder = tree(
        tmp_path / "project", run="", big__model="", sub__keep="", sub__drop="", out__x="", logs__a=""
    )
    (folder / ".gitignore").write_text("big/\n/out\n*.log\n")
    (folder / "sub/.gitignore").write_text("drop\n")
    (folder / ".rayignore").write_text("logs/*\n!logs/a\n")
    (folder / "noise.log").write_text("")
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text("")
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    names = [".gitignore", ".rayignore", "run", "logs/a", "sub/.gitignore", "sub/keep"]
    assert list(files(folder)) == names
    assert pack_folder(folder, tmp_path / "first.zip") == names
    pack_folder(folder, tmp_path / "second.zip")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    assert zipfile.ZipFile(tmp_path / "first.zip").namelist() == names


def test_a_package_over_the_limit_names_the_largest_files(tmp_path) -> None:
    folder = tree(tmp_path / "project", small="a" * 10, large="b" * 3_000_000, middle="c" * 1_000_000)
    with pytest.raises(PackageTooLarge, match=r"large \(2\.9 MiB\), middle \(1\.0 MiB\), small") as error:
        pack_folder(folder, tmp_path / "out.zip", limit=2**20)
    assert "3.8 MiB, but a job may bring 1 MiB" in str(error.value)
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "directory: a job needs a place that every node of the cluster sees"),
        (["directory=runs/toy"], "directory: a job needs"),
        (["directory=/r", "data.groups={a: texts}", "data.corpus=/c"], "data.groups.a: a job needs"),
        (["directory=/r", "data.groups={a: installed}"], "data.corpus: a job needs"),
    ],
)
def test_places_that_only_this_machine_knows_are_refused(changes, said, refused) -> None:  # noqa: F811
    file = DEMO if any(change.startswith("data.") for change in changes) else TOY
    assert said in refused("submit", file, *changes, "--address", "http://127.0.0.1:1")


def test_a_file_outside_the_working_directory_is_refused(tmp_path, refused) -> None:  # noqa: F811
    said = refused("submit", TOY, "directory=/r", "--working-dir", str(tmp_path))
    assert "must lie in the working directory" in said


def test_a_file_that_is_ignored_is_refused(tmp_path, refused) -> None:  # noqa: F811
    file = tmp_path / "toy.yaml"
    file.write_text(Path(TOY).read_text())
    (tmp_path / ".gitignore").write_text("*.yaml\n")
    assert "keeps it from being sent" in refused(
        "submit", str(file), "directory=/r", "--working-dir", str(tmp_path)
    )


@pytest.mark.parametrize("command", [("submit", TOY, "directory=/r"), ("stop", "toy-1"), ("logs", "toy-1")])
def test_an_address_that_nobody_answers_is_one_line(command, monkeypatch, refused) -> None:  # noqa: F811
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    arguments = [*command, "--working-dir", str(ROOT)] if command[0] == "submit" else list(command)
    said = refused(*arguments, "--address", "http://127.0.0.1:1")
    assert "--address: no Ray head answers at http://127.0.0.1:1" in said and said.count("\n") == 1
    assert "no address: give --address" in refused(*arguments)


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """An HTTP server that answers everything with one status."""
    answer = SimpleNamespace(status=200, body="{}")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer.status)
            self.end_headers()
            self.wfile.write(answer.body.encode())

        def log_message(self, *_: object) -> None: ...

    running_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=running_server.serve_forever, daemon=True).start()
    answer.address = f"http://127.0.0.1:{running_server.server_port}"
    yield answer
    running_server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, "no", "asks for a token: set RAY_AUTH_MODE=token"),
        (403, "no", "does not accept this token"),
        (502, "bad gateway", "no Ray head answers"),
        (200, "<html>", "no Ray head answers"),
    ],
)
def test_what_is_no_open_job_server_is_one_line(status, body, said, server, monkeypatch, refused) -> None:  # noqa: F811
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    server.status, server.body = status, body
    found = refused("status", "toy-1", "--address", server.address)
    assert said in found and found.count("\n") == 1


def test_pairs_without_a_sign_are_refused() -> None:
    assert pairs("--metadata", ["team=fish", "note=a=b"]) == [("team", "fish"), ("note", "a=b")]
    with pytest.raises(InputError, match="must be written name=value, got team"):
        pairs("--metadata", ["team"])


def test_the_command_of_a_job_is_quoted_and_resumes(tmp_path) -> None:
    wanted = jobs.Submission(TOY, ["hyperparameters={a: 1}", "directory=/r"], None, ROOT)
    assert wanted.command == (
        "python -m shoal run examples/toy.yaml 'hyperparameters={a: 1}' directory=/r --resume auto"
    )


def ended(status: str, code: int | None = None) -> SimpleNamespace:
    return SimpleNamespace(status=status, driver_exit_code=code, message="Driver exited.\nand so on")


@pytest.mark.parametrize(
    ("ends", "tries", "error"),
    [
        ([ended("FAILED", 137), None, ended("SUCCEEDED", 0)], 3, None),
        ([ended("FAILED", 1)], 1, RunFailed),
        ([ended("FAILED", 2)], 1, InputError),
        ([ended("STOPPED")], 1, RunFailed),
        ([ended("FAILED", -9)] * 4, 4, RunFailed),
    ],
)
def test_a_job_whose_driver_died_is_submitted_again(ends, tries, error, monkeypatch) -> None:
    sent, left = [], iter(ends)
    client = SimpleNamespace(get_address=lambda: "http://head:8265")
    monkeypatch.setattr(jobs.jobs, "job_client", lambda address: client)
    monkeypatch.setattr(jobs, "send", lambda *_: sent.append(1) or f"toy-{len(sent)}")
    monkeypatch.setattr(jobs, "watch", lambda *_: next(left))
    wanted = jobs.Submission(TOY, ["directory=/r"], None, ROOT)
    if error:
        with pytest.raises(error):
            jobs.submit_run(wanted, QUIET, True)
    else:
        jobs.submit_run(wanted, QUIET, True)
    assert len(sent) == tries


def test_a_log_goes_on_where_it_was_when_the_head_comes_back(monkeypatch) -> None:
    texts = [["one ", "two "], ["one two ", "three"]]
    monkeypatch.setattr(jobs.jobs, "SECONDS_BETWEEN_JOB_LOOKS", 0.0)

    class Client:
        async def tail_job_logs(self, job):
            for text in texts.pop(0):
                yield text
            if texts:
                raise RuntimeError("WebSocket connection closed unexpectedly")

    class Done(SimpleNamespace):
        status = SimpleNamespace(is_terminal=lambda: True)

    monkeypatch.setattr(jobs.jobs, "details", lambda client, job: Done())
    console = Console(record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    assert isinstance(jobs.watch(Client(), "toy-1", console), Done)
    said = console.export_text()
    assert said.startswith("one two job toy-1: lost the head") and said.endswith("three")


def test_a_directory_is_found_among_the_jobs(monkeypatch) -> None:
    def job(number: int, place: str) -> SimpleNamespace:
        return SimpleNamespace(
            submission_id=f"toy-{number}", start_time=number, metadata={"shoal_directory": place}
        )

    client = SimpleNamespace(list_jobs=lambda: [job(1, "/r"), job(3, "/r"), job(2, "/r"), job(4, "/other")])
    assert jobs.jobs.find(client, "/r") == "toy-3"
    assert jobs.jobs.find(client, "/nowhere") is None


def test_the_driver_notes_its_job(tmp_path, monkeypatch) -> None:
    told = {"job_submission_id": "toy-1", "shoal_address": "http://head:8265"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": told}))
    directory.note_job(Store(str(tmp_path)))
    assert directory.job_of(str(tmp_path)) == {"job": "toy-1", "address": "http://head:8265"}


def test_a_newer_driver_takes_the_directory_over(tmp_path) -> None:
    first = lease.take(str(tmp_path))
    first.write("a", "1")
    second = lease.take(str(tmp_path))
    with pytest.raises(lease.LeaseLost, match=r"taken over by another driver \(lease 2\)"):
        first.write("a", "2")
    with pytest.raises(lease.LeaseLost):
        first.delete("a")
    assert second.read("a") == b"1"
    assert second.held() and not first.held()


def test_a_driver_that_lost_its_directory_ends_its_run(conductor, tmp_path) -> None:  # noqa: F811
    conductor.store = lease.take(str(tmp_path))
    lease.take(str(tmp_path))
    for round_ in (1, 2):  # what is decided is written beside the next round, which finds out
        told = {"messages": [reports(round_, [1.0, 2.0, 3.0, 4.0])]}
        PopulationScheduler(conductor).on_trial_result(None, None, told)
    assert "taken over by another driver" in conductor.failure
    assert conductor.given[2] is None
    assert not (tmp_path / "metrics.parquet").exists()


def begun(tmp_path: Path, *changes: str, file: str = TOY) -> list[str]:
    run = load_run(file, [f"directory={tmp_path}/run", *changes])
    directory.create(run)
    return [f"directory={tmp_path}/run"]


def test_resume_auto_takes_the_run_that_is_there(tmp_path, monkeypatch) -> None:
    trained = []
    monkeypatch.setattr(running, "train", lambda run, runs, console: trained.append([run, *runs]))
    changes = begun(tmp_path)
    given = load_run(TOY, [*changes, "cluster.broods=2", "cluster.workers_per_brood=1"])
    with pytest.raises(InputError, match="already holds a run"):
        running.run_new(given, QUIET)
    running.run_new(given, QUIET, resume="auto")
    # the same run, on a cluster of another shape
    assert trained == [[given, given]]
    assert directory.open_run(f"{tmp_path}/run")[0].cluster.broods == 2
    with pytest.raises(InputError, match=r"training.steps is 200 there, 400 here"):
        running.run_new(load_run(TOY, [*changes, "training.steps=400"]), QUIET, resume="auto")


def test_resume_auto_knows_a_run_whose_working_directory_lies_elsewhere(tmp_path) -> None:
    def unpacked(session: str, package: str) -> str:
        return f"data.corpus=/tmp/ray/{session}/runtime_resources/working_dir_files/_ray_pkg_{package}/corpus"

    changes = begun(tmp_path, unpacked("session_1", "0a1b"), file=DEMO)
    again = load_run(DEMO, [*changes, unpacked("session_2", "2c3d")])
    assert directory.same_run(again) == again
    with pytest.raises(InputError, match=r"data.corpus is corpus there, /other here"):
        directory.same_run(load_run(DEMO, [*changes, "data.corpus=/other"]))


def test_resume_auto_begins_where_nothing_is_and_must_refuses(tmp_path, monkeypatch) -> None:
    trained = []
    monkeypatch.setattr(running, "train", lambda run, runs, console: trained.append(run))
    given = load_run(TOY, [f"directory={tmp_path}/run"])
    with pytest.raises(InputError, match="is not a run directory"):
        running.run_new(given, QUIET, resume="must")
    running.run_new(given, QUIET, resume="auto")
    # what stands in the way of the next try is made when Ray has begun
    assert trained == [given] and not directory.holds_run(f"{tmp_path}/run")


def test_resume_auto_of_a_finished_run_is_no_mistake(tmp_path, monkeypatch) -> None:
    closed: list[list[Run]] = []
    monkeypatch.setattr(running, "train", lambda run, runs, console: closed.append(runs))
    changes, store = begun(tmp_path), Store(f"{tmp_path}/run")
    store.write_json("summary.json", {"status": "done"})
    # it was ended between its training and its report
    running.run_new(load_run(TOY, changes), QUIET, resume="auto")
    running.run_on(store.uri, QUIET)
    assert closed == [[], []]
    for name in ("report.html", "best/config.json"):
        store.write(name, "{}")
    running.run_new(load_run(TOY, changes), QUIET, resume="auto")
    with pytest.raises(InputError, match="is finished"):
        running.run_on(store.uri, QUIET)
    assert len(closed) == 2
