"""Whole runs under a sampling policy whose losses a brood shares, on an embedded Ray."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shoal.cluster.storage import Store
from tests.helpers.runs import members, same_weights, scores, shoal, start, wait_for_round

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def kept(directory: Path) -> list[tuple[int, int, float]]:
    rows = Store(str(directory)).read_table("metrics.parquet").to_pylist()
    return sorted((row["round"], row["member"], row["kept"]) for row in rows)


def test_a_run_that_is_killed_keeps_the_same_rows_as_one_that_is_not(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    rng = np.random.default_rng(0)
    for place in range(60):  # some rows are easier than others
        (texts / f"{place}.txt").write_text("".join(rng.choice(list("abcdefgh "[: 1 + place % 9]), 400)))
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
name: sampled
data: {{corpus: {tmp_path}/corpus, groups: {{text: {texts}}}, sequence_length: 32}}
model: {{layers: 1, heads: 2, width: 16}}
training: {{steps: 120, batch: 64, warmup: 5, evaluation_rows: 8}}
sampling: {{rule: infobatch, view: brood}}
hyperparameters: {{learning_rate: {{kind: float, low: 0.001, high: 0.03, log: true}}}}
population: {{members: 4, interval: 12}}
cluster: {{broods: 1, workers_per_brood: 2}}
"""
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shoal("run", str(path), f"directory={whole}")
    shares = np.array([share for _, _, share in kept(whole)])
    assert shares.min() < 0.9 and shares.max() == 1.0
    process = start("run", str(path), f"directory={killed}")
    wait_for_round(killed, 5, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)
    shoal("resume", str(killed))
    assert kept(killed) == kept(whole) and scores(killed) == scores(whole)
    assert same_weights(members(killed, 4), members(whole, 4))


def descendants(ancestor: int) -> Iterator[tuple[int, str]]:
    """Yield the number and title of each process that a process has started, itself or through others."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    lines = [line.split(None, 2) for line in found.stdout.splitlines()]
    parents = {int(line[0]): int(line[1]) for line in lines}
    for number, _, title in (line for line in lines if len(line) == 3):
        parent = int(number)
        while (parent := parents.get(parent, 0)) not in (0, ancestor):
            pass
        if parent == ancestor:
            yield int(number), title


def kill(run: subprocess.Popen[str], title: str) -> None:
    """Kill the first process of a run that is seen at this work."""
    deadline = time.monotonic() + 480
    while run.poll() is None and time.monotonic() < deadline:
        for process, doing in descendants(run.pid):
            if title in doing:
                os.kill(process, signal.SIGKILL)
                return
    raise AssertionError(f"no process was seen at {title}")


def test_a_reader_and_a_shard_that_die_within_an_epoch_leave_all_batches_as_they_were(tmp_path: Path) -> None:
    """A group of two windows' size; the members choose rows by losses that they share in the ledger."""
    texts, rng = tmp_path / "texts", np.random.default_rng(0)
    texts.mkdir()
    for place in range(1000):
        (texts / f"{place}.txt").write_text("".join(rng.choice(list("abcdefgh "[: 2 + place % 8]), 600)))
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
name: mortal
data: {{corpus: {tmp_path}/corpus, groups: {{text: {texts}}}, sequence_length: 8, memory_megabytes: 0.55}}
model: {{layers: 1, heads: 1, width: 8}}
training: {{steps: 240, batch: 1024, warmup: 5, evaluation_rows: 8}}
sampling: {{rule: infobatch, view: brood}}
hyperparameters: {{learning_rate: {{kind: float, low: 0.001, high: 0.03, log: true}}}}
population: {{members: 4, interval: 12}}
cluster: {{broods: 1, workers_per_brood: 2}}
"""
    )
    whole, mortal = tmp_path / "whole", tmp_path / "mortal"
    shoal("run", str(path), f"directory={whole}")
    rows = Store(str(whole)).read_table("metrics.parquet").to_pylist()
    assert max(row["epochs_text"] for row in rows) > 2 and {row["skipped_text"] for row in rows} == {0}
    assert min(row["kept"] for row in rows) < 0.9
    process = start("run", str(path), f"directory={mortal}")
    wait_for_round(mortal, 4, process)
    kill(process, "MapBatches(read_turns)")
    kill(process, "ray::Shard")
    said, _ = process.communicate(timeout=1120)
    assert process.returncode == 0, said
    assert max(row[0] for row in scores(mortal)) == 20
    assert kept(mortal) == kept(whole) and scores(mortal) == scores(whole)
    assert same_weights(members(mortal, 4), members(whole, 4))
