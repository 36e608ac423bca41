"""TensorBoard's event files hold what a run records; a tracker that is down costs the run one line."""

import struct
from pathlib import Path
from typing import Any

import pytest

from shoal.cluster.storage import Store
from shoal.policies.population import Order
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.messages import GroupMixture, MixtureAccount, Row
from shoal.search.track import watching
from shoal.search.track.again import track_again
from shoal.search.track.watching import Tracking
from tests.helpers.directories import TOY, written

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
NOTHING = print


def events(folder: Path) -> list[Any]:
    """Return the events of a member's files: each follows a length and a checksum."""
    found = []
    for file in sorted(folder.glob("events.*")):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event in events(folder)
        for value in event.summary.value
        if value.HasField("simple_value")
    }


def row(member: int, step: int, score: float) -> Row:
    shares = MixtureAccount([GroupMixture("code", 0.75, 1, 9, [], [])], "", 0, 0, 0)
    settings = {"h0": 0.5, "kind": "x", "inner": {"rate": 2}}
    return Row(
        member,
        step // 4,
        step,
        score=score,
        train_loss=-score,
        losses={"code": 1.5},
        mixture=shares,
        hyperparameters=settings,
    )


@pytest.fixture
def run(tmp_path):
    return load_run(TOY, [f"directory={tmp_path}/run", "track=tensorboard"])


def test_each_member_is_a_run_with_scores_losses_proportions_and_hyperparameters(run, tmp_path) -> None:
    with Tracking(run, NOTHING) as tracking:
        tracking.round(1, [row(0, 4, 0.25), row(1, 4, float("nan"))], [])
        tracking.round(2, [row(0, 8, 0.5), row(1, 8, 0.125)], [Order(1, 0, {})])
    first = scalars(tmp_path / "run/tensorboard/member-00000")
    assert first["score", 4] == 0.25 and first["score", 8] == 0.5
    assert first["loss/code", 8] == 1.5 and first["proportion/code", 8] == 0.75
    assert first["hyperparameters/h0", 8] == 0.5 and first["hyperparameters/inner.rate", 8] == 2.0
    second = scalars(tmp_path / "run/tensorboard/member-00001")
    assert ("score", 4) not in second and second["score", 8] == 0.125
    tags = {
        value.tag
        for event in events(tmp_path / "run/tensorboard/member-00001")
        for value in event.summary.value
    }
    assert "copy/text_summary" in tags and "hyperparameters/kind/text_summary" in tags


def test_a_resumed_run_hides_what_it_writes_again(run, tmp_path) -> None:
    for score in (0.25, 0.75):
        with Tracking(run, NOTHING) as tracking:
            tracking.round(1, [row(0, 4, score)], [])
    folder = tmp_path / "run/tensorboard/member-00000"
    restarts = [event for event in events(folder) if event.HasField("session_log")]
    assert [event.step for event in restarts] == [4]


def test_a_tracker_that_is_down_is_one_line_and_hears_all_when_it_is_back(run, monkeypatch) -> None:
    class Down:
        down, told = True, []

        def __init__(self, run, given) -> None: ...

        def row(self, row) -> None:
            if self.down:
                raise ConnectionError("no tracker here")
            self.told.append(row.step)

        def flush(self) -> None:
            Down.down = len(said) == 0

        def close(self) -> None: ...

    said: list[str] = []
    monkeypatch.setitem(watching.TRACKERS_BY_KIND, "tensorboard", Down)
    tracking = Tracking(run, said.append)
    for step in (4, 8):
        tracking.left[0].append(watching.Told([row(0, step, 0.5)], []))
        tracking._send_to(0, tracking.trackers[0])
    assert said == ["track: tensorboard takes nothing: no tracker here"]
    Down.down = False
    tracking._send_to(0, tracking.trackers[0])
    assert Down.told == [4, 8] and tracking.left == [[]]


def test_a_run_is_sent_again_from_its_records(tmp_path) -> None:
    run = written(tmp_path / "run", 5)
    places = track_again(run, Store(run.directory))
    assert places == [f"tensorboard: {tmp_path}/run/tensorboard"]
    table = Store(run.directory).read_table("metrics.parquet").to_pylist()
    for member in range(4):
        found = scalars(tmp_path / f"run/tensorboard/member-{member:05d}")
        expected = {each["step"]: each["score"] for each in table if each["member"] == member}
        assert {step: value for (tag, step), value in found.items() if tag == "score"} == pytest.approx(
            expected
        )


def test_bad_input_names_the_key(tmp_path) -> None:
    with pytest.raises(InputError, match=r"track\.0\.kind: must be one of tensorboard"):
        load_run(TOY, ["track=tensorbord"])
    with pytest.raises(InputError, match=r"track: "):
        load_run(TOY, ["track=tensorboard", "directory=s3://bucket/run"])
