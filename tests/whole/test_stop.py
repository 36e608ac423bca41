"""`stop:` ends a run of members that do not wait for one another, and goes on counting after a resume."""

import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import shoal
from shoal.search.records.whole import newest_whole
from tests.helpers.runs import shoal as command
from tests.helpers.runs import start, wait_for_round

CLASS = """
import time


class Paced:
    def __init__(self, recipe, hyperparameters, seed, device):
        self.pause, self.trained = hyperparameters["pause"], 0

    def train(self, steps):
        time.sleep(steps * self.pause)
        self.trained += steps
        return 0.0

    def evaluate(self, split="validation"):
        return SCORE, {}

    def state(self):
        return {"weights": {}, "trained": self.trained}

    def load(self, state, hyperparameters):
        self.trained, self.pause = state["trained"], hyperparameters["pause"]
"""
RUN = """
name: paced
trainable: paced:Paced
training: {steps: 4000}
starts: [{hyperparameters: {pause: PAUSE}}, {hyperparameters: {pause: 0.02}}, {hyperparameters: {pause: 0.02}}]
population: {members: 3, interval: 4, exploit: none, mode: asynchronous}
cluster: {broods: 1, workers_per_brood: 3}
"""


def write(folder: Path, score: str, pause: str, stop: str) -> Path:
    (folder / "paced.py").write_text(CLASS.replace("SCORE", score))
    (folder / "run.yaml").write_text(RUN.replace("PAUSE", pause) + f"stop: {stop}\n")
    return folder / "runs/paced"


def last_steps(place: Path) -> dict[int, int]:
    rows = shoal.open(place).metrics.to_pylist()
    return {member: max(row["step"] for row in rows if row["member"] == member) for member in range(3)}


def steps_told(place: Path, member: int) -> list[int]:
    """Return the steps of which TensorBoard was told a member's score."""
    events = EventAccumulator(f"{place}/tensorboard/member-{member:05d}", {"scalars": 0})
    return [each.step for each in events.Reload().Scalars("score")]


@pytest.mark.ray
@pytest.mark.slow
def test_a_member_that_is_far_slower_does_not_keep_a_run_from_its_end(tmp_path) -> None:
    # nothing gets better after the first reports: nine more, and the run is over
    place = write(tmp_path, "1.0", "0.5", "{patience: 3}")
    said = command("run", "run.yaml", "track=tensorboard", folder=tmp_path)
    assert "no better score in 3 reports of each member (stop.patience)" in said
    summary = shoal.open(place).summary
    assert summary["status"] == "done" and "stop.patience" in summary["ended"]
    steps = last_steps(place)
    assert steps[0] <= 12 and 12 < max(steps[1], steps[2]) < 4000, steps
    assert summary["wall_seconds"] < 300, "the slow member alone would have taken 2000 s"
    tracked = {member: len(list(steps_told(place, member))) for member in range(3)}
    rows = shoal.open(place).metrics.to_pylist()
    assert tracked == {member: sum(row["member"] == member for row in rows) for member in range(3)}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["asynchronous", "synchronous"])
def test_a_resumed_run_goes_on_counting(tmp_path, mode: str) -> None:
    place = write(tmp_path, "min(self.trained, 8.0)", "0.05", "{patience: 40, minutes: 30}")
    process = start("run", "run.yaml", f"population.mode={mode}", folder=tmp_path)
    wait_for_round(place, 6, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=240)
    counted = max(
        newest_whole(each.run, each._store, print).stopping["reports"] for each in [shoal.open(place)]
    )
    assert counted > 0
    said = command("resume", str(place), folder=tmp_path)
    assert "(stop.patience)" in said
    rows = shoal.open(place).metrics.to_pylist()
    best = [row["arrival"] for row in rows if row["score"] == 8.0]
    # the first report of the best score, 40 of each of 3 members after it, and at most one more of each
    assert 120 <= len(rows) - min(best) <= 120 + 2 * 3, "what was counted before the resume counts"
