"""`shoal.run` in a script of the user's: its own class, Ctrl-C, and on to the end in the same process."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import shoal
from tests.helpers.runs import ROOT, STARTED

SCRIPT = """
import os, sys, time
import shoal

PAUSE = 0.05  # seconds of a step, so that a signal finds the run at work


class Slope:
    def __init__(self, recipe, hyperparameters, seed, device):
        self.rate, self.height, self.trained = hyperparameters["rate"], 0.0, 0

    def train(self, steps):
        time.sleep(steps * PAUSE)
        self.height += steps * self.rate
        self.trained += steps
        return -self.height

    def evaluate(self, split="validation"):
        return self.height, {}

    def state(self):
        return {"weights": {"height": self.height}, "trained": self.trained}

    def load(self, state, hyperparameters):
        self.height, self.trained = float(state["weights"]["height"]), state["trained"]
        self.rate = hyperparameters["rate"]


try:
    shoal.run({
        "name": "slope",
        "trainable": Slope,
        "directory": sys.argv[1],
        "training": {"steps": 40},
        "hyperparameters": {"rate": {"kind": "float", "low": 0.1, "high": 1.0}},
        "population": {"members": 3, "interval": 4},
        "cluster": {"broods": 1},
    })
except shoal.Interrupted as error:
    print("interrupted:", error, flush=True)
result = shoal.open(sys.argv[1])
print("status", result.status, flush=True)
result = result.resume()
print("status", result.status, type(result.best.load()).__name__, flush=True)
"""


@pytest.mark.ray
def test_a_class_of_a_script_trains_is_interrupted_and_goes_on(tmp_path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    place = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "script.py", str(place)],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(ROOT),
            "PATH": "/usr/bin:/bin",
            "RAY_AUTH_MODE": "disabled",
            "HOME": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    STARTED.append(process)
    wait_for(place / "checkpoints/round-000002/decisions.json", process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=800)
    assert process.returncode == 0, said
    assert f"interrupted: stopped before the end. Continue with `shoal resume {place}`." in said
    assert "status interrupted" in said and "status done Slope" in said
    # another process finds the class, though the script is not imported there
    result = shoal.open(place)
    assert result.best.load().height == pytest.approx(result.best.score)
    rounds = {(row["round"], row["member"]) for row in result.metrics.to_pylist()}
    assert len(rounds) == result.metrics.num_rows == 30


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 800
    while not file.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
