"""Values that JSON loses, and a class that raises when made: a whole run on Ray, and its resume."""

import os
import signal
from pathlib import Path

import pytest

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from tests.helpers.runs import events, scores, shoal, start, wait_for_round

SIZES = """
import time

import numpy as np


class Sizes:
    def __init__(self, recipe, hyperparameters, seed, device):
        assert hyperparameters["sizes"] != (64, 32), "no room for these"
        self.value, self.trained = float(seed % 7), 0
        self.take(hyperparameters)

    def take(self, hyperparameters):
        self.sizes = hyperparameters["sizes"]
        assert isinstance(self.sizes, tuple) and hyperparameters["word"] == "1e-4"

    def train(self, steps):
        time.sleep(0.05)
        self.trained, self.value = self.trained + steps, self.value + sum(min(size, 500) for size in self.sizes)
        return 0.0

    def evaluate(self, split="validation"):
        return self.value, {}

    def state(self):
        return {"weights": {"w": np.array([self.value])}, "trained": self.trained}

    def load(self, state, hyperparameters):
        self.value, self.trained = float(state["weights"]["w"][0]), state["trained"]
        self.take(hyperparameters)
"""
RUN = """
name: sizes
trainable: sizes:Sizes
training: {steps: 1000}
hyperparameters:
  sizes: {kind: ordered, values: [[32], [64, 32], [128, .inf]]}
  word: {kind: constant, value: "1e-4"}
population: {members: 6, interval: 5, exploit: {kind: truncation, fraction: 0.25}}
cluster: {broods: 1}
"""


@pytest.mark.slow
def test_lists_and_infinities_go_on_where_they_were(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/sizes.py").write_text(SIZES)
    (tmp_path / "p/run.yaml").write_text(RUN)
    place = tmp_path / "my run"
    process = start("run", "p/run.yaml", "directory=my run", folder=tmp_path)
    wait_for_round(place, 3, process)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=360)
    assert process.returncode == 130 and f"`shoal resume '{place}'`" in said, said
    resumed = checkpoints.latest(Store(str(place)), range(6))
    text = (place / "run.yaml").read_text().replace("steps: 1000", f"steps: {5 * (resumed + 6)}")
    (place / "run.yaml").write_text(text)
    shoal("resume", "../my run", folder=tmp_path / "p")
    allowed = {(32,), (64, 32), (128, float("inf"))}
    found = {event.after["sizes"] for event in events(place)}
    assert found <= allowed and (128, float("inf")) in found
    begun = [event.after["sizes"] for event in events(place) if event.event == "start"]
    failed = [member for round_, member, score in scores(place) if round_ == 1 and score != score]
    assert failed == [member for member, sizes in enumerate(begun) if sizes == (64, 32)]
