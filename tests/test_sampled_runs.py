"""Whole runs under a sampling policy whose losses a brood shares, on an embedded Ray."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from test_ray import members, same_weights, scores, shoal, start, wait_for_round

from cluster.storage import Store

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
    process.communicate(timeout=60)
    shoal("resume", str(killed))
    assert kept(killed) == kept(whole) and scores(killed) == scores(whole)
    assert same_weights(members(killed, 4), members(whole, 4))
