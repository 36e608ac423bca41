"""Whole runs on an embedded Ray: the same decisions as without Ray, and nothing lost when killed."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.records import directory
from shoal.search.records.last import last_rows
from shoal.search.records.lineage import ancestry
from tests.helpers.listening import addresses, descendants
from tests.helpers.runs import (
    TOY,
    events,
    members,
    same_weights,
    scores,
    shoal,
    small_run,
    start,
    wait_for_round,
    without_ray,
)

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def dead_cluster() -> Iterator[str]:
    """A folder for Ray's files in which `ray start` left the address of a cluster that is gone."""
    # pytest's own folders have names too long for Ray's sockets
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        yield folder


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory, dead_cluster) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("toy") / "run"
    return directory, shoal("run", TOY, "--baseline", f"directory={directory}", RAY_TMPDIR=dead_cluster)


def test_the_toy_on_ray_equals_the_plain_loop(toy_run) -> None:
    directory, _ = toy_run
    copies, said = without_ray(TOY)
    assert len(copies) > 40
    assert scores(directory) == said
    recorded = [event for event in events(directory) if event.parent is not None]
    assert [(event.member, event.parent, event.after) for event in recorded] == [
        (order.member, order.donor, order.hyperparameters) for order in copies
    ]


def test_a_worker_that_has_all_members_ends_as_the_plain_loop(tmp_path) -> None:
    shoal("run", TOY, f"directory={tmp_path / 'run'}", "cluster={broods: 1, workers_per_brood: 1}")
    copies, said = without_ray(TOY)
    assert scores(tmp_path / "run") == said
    recorded = [event for event in events(tmp_path / "run") if event.parent is not None]
    assert [(event.member, event.parent, event.after) for event in recorded] == [
        (order.member, order.donor, order.hyperparameters) for order in copies
    ]


def test_copies_cross_broods_and_stay_within_them(toy_run) -> None:
    recorded = [event for event in events(toy_run[0]) if event.parent is not None]
    # two broods of one worker: members are dealt out in turn
    assert {event.member % 2 == event.parent % 2 for event in recorded} == {True, False}


def test_a_finished_run_says_where_everything_is(toy_run) -> None:
    directory, said = toy_run
    for name in ("run.yaml", "summary.json", "report.html", "best/model.safetensors", "best/config.json"):
        assert (directory / name).exists()
    assert str(directory / "report.html") in said and str(directory / "best/model.safetensors") in said
    assert "without exploits" in said
    best = load((directory / "best/model.safetensors").read_bytes())
    assert 1.2 - (best["place"] ** 2).sum() == pytest.approx(max(row[2] for row in scores(directory)[-4:]))


def test_the_baseline_is_the_same_members_without_exploits(toy_run) -> None:
    directory, _ = toy_run
    alone = events(directory / "baseline")
    assert [event.after for event in alone] == [event.after for event in events(directory)[:4]]
    assert scores(directory / "baseline")[:4] == scores(directory)[:4]


def test_a_finished_run_is_not_run_again(toy_run) -> None:
    process = start("resume", str(toy_run[0]))
    said, _ = process.communicate(timeout=480)
    assert process.returncode == 2 and "is finished" in said


@pytest.fixture(scope="module")
def whole_run(texts, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("whole") / "run"
    shoal("run", *small_run(texts, directory))
    return directory


def test_a_killed_run_resumes_to_the_same_end(texts, whole_run, tmp_path) -> None:
    killed = tmp_path / "killed"
    process = start("run", *small_run(texts, killed))
    wait_for_round(killed, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)
    assert status_of(killed) == "stopped"
    reached = checkpoints.latest(Store(str(killed)), range(4))
    assert 2 <= reached < 10
    # at most the interval that was going on is lost
    assert max(row[0] for row in scores(killed)) <= reached + 1
    shoal("resume", str(killed))
    assert events(killed) == events(whole_run)
    assert len([event for event in events(killed) if event.parent is not None]) > 0
    assert scores(killed) == scores(whole_run)
    assert same_weights(members(killed, 4), members(whole_run, 4))


@pytest.mark.slow
@pytest.mark.parametrize("broods", [2, 1])
def test_a_brood_that_loses_its_worker_comes_back_and_nothing_changes(tmp_path, broods: int) -> None:
    # one brood decides by itself until it comes back; then it has to be told what it had decided
    changes = (
        "training.steps=1200",
        f"cluster={{broods: {broods}, workers_per_brood: 1}}",
        "checkpoint.every=5",
    )
    process = start("run", TOY, f"directory={tmp_path}", *changes)
    wait_for_round(tmp_path, 20, process)
    hosts = [line for line in processes() if "RayTrainWorker" in line]
    os.kill(int(hosts[0].split()[1]), signal.SIGKILL)
    said, _ = process.communicate(timeout=800)
    assert process.returncode == 0, said
    assert len(hosts) == broods
    copies, reported = without_ray(TOY, *changes)
    assert scores(tmp_path) == reported
    recorded = [(event.member, event.parent) for event in events(tmp_path) if event.parent is not None]
    assert recorded == [(order.member, order.donor) for order in copies]


def test_a_replay_of_the_winner_ends_with_the_same_weights(whole_run) -> None:
    said = shoal("replay", str(whole_run))
    # what was replayed is a chain of several members
    winner = last_rows(*directory.open_run(str(whole_run)))[1]
    assert len({segment.member for segment in ancestry(events(whole_run), winner, round=10)}) > 1
    assert f"member {winner} of demo and its replay have the same weights, bit for bit" in said
    found = scores(whole_run / "replay" / str(winner))
    assert found[-1][2] == max(score for round_, _, score in scores(whole_run) if round_ == 10)
    printed = yaml.safe_load(shoal("schedule", str(whole_run)))
    replayed = yaml.safe_load((whole_run / "replay" / str(winner) / "run.yaml").read_text())
    assert printed["schedule"] == replayed["schedule"]


OWN = """
class Climber:
    def __init__(self, recipe, hyperparameters, seed, device):
        self.height, self.trained, self.pace = 0.0, 0, hyperparameters["pace"]

    def train(self, steps):
        if self.pace > 0.9:
            raise ArithmeticError("too fast")
        self.height, self.trained = self.height + self.pace * steps, self.trained + steps
        return -self.height

    def evaluate(self, split="validation"):
        return self.height, {}

    def state(self):
        return {"weights": {}, "height": self.height, "trained": self.trained}

    def load(self, state, hyperparameters):
        self.height, self.trained = state["height"], state["trained"]
        self.pace = hyperparameters["pace"]
"""

OWN_RUN = """
name: own
trainable: climbing:Climber
training: {steps: 40}
hyperparameters: {pace: {kind: float, low: 0.1, high: 1.2}}
population: {members: 6, interval: 4}
cluster: {broods: 1}
"""


def test_a_member_of_ones_own_that_raises_is_replaced(tmp_path) -> None:
    (tmp_path / "climbing.py").write_text(OWN)
    (tmp_path / "own.yaml").write_text(OWN_RUN)
    said = shoal("run", "own.yaml", folder=tmp_path)
    assert "ArithmeticError: too fast" in said
    notes = list((tmp_path / "runs/own/failures").iterdir())
    assert notes and "raise ArithmeticError" in notes[0].read_text()
    reached = [score for round_, _, score in scores(tmp_path / "runs/own") if round_ == 10]
    assert np.isfinite(reached).sum() >= 5 and max(reached) > 20


@pytest.mark.slow
def test_a_run_whose_members_all_fail_says_why(tmp_path) -> None:
    (tmp_path / "climbing.py").write_text(OWN)
    (tmp_path / "own.yaml").write_text(OWN_RUN.replace("low: 0.1", "low: 1.0"))
    process = start("run", "own.yaml", folder=tmp_path)
    said, _ = process.communicate(timeout=480)
    assert process.returncode == 1
    assert "all members have failed by step 4" in said and "climbing.py" in said and "shoal resume" in said


def test_ctrl_c_stops_ray_and_leaves_a_run_that_resumes(tmp_path) -> None:
    arguments = (TOY, f"directory={tmp_path}", "training.steps=40000")
    process = start("run", *arguments)
    wait_for_round(tmp_path, 3, process)
    listening = addresses(descendants(process.pid))
    assert listening and not {place: who for place, who in listening.items() if not place.startswith("127.")}
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=360)
    assert process.returncode == 130, said
    assert "shoal resume" in said and "Traceback" not in said
    assert not children_of(process.pid)


def test_sigterm_to_the_whole_group_ends_a_run_at_once_and_it_resumes(tmp_path) -> None:
    process = start("run", TOY, f"directory={tmp_path}", "training.steps=40000")
    wait_for_round(tmp_path, 3, process)
    assert status_of(tmp_path) == "running"
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)  # Ray's processes are in groups of their own
    said, _ = process.communicate(timeout=360)
    assert time.monotonic() - began < 55  # a driver whose head is gone waits for a minute
    assert process.returncode == 143, said
    ends = [line for line in said.splitlines() if not line.startswith("toy: ")]
    assert ends == [f"interrupted: stopped before the end. Continue with `shoal resume {tmp_path}`."]
    assert status_of(tmp_path) == "interrupted"
    assert not children_of(process.pid)


def status_of(place: Path) -> str:
    return str(directory.summary(Store(str(place)))["status"])


def processes() -> list[str]:
    """Return every process as its session, its number and its command line."""
    found = subprocess.run(["ps", "-eo", "sid=,pid=,args="], capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


def children_of(session: int, seconds: float = 60.0) -> list[str]:
    """Return the processes that still live in a session; one that is killed needs a moment to go."""
    deadline = time.monotonic() + seconds
    while True:
        left = [line for line in processes() if line.split()[0] == str(session)]
        left = [line for line in left if "<defunct>" not in line]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)
