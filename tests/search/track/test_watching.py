"""A tracker that is down or slow costs a run one line, and is told the rest later."""

import threading
import time
from typing import Any, ClassVar

import pytest

from shoal.cluster.storage import Store
from shoal.search.checks import start
from shoal.search.errors import InputError, RunFailed
from shoal.search.load import load_run
from shoal.search.messages import GroupMixture, MixtureAccount, Row
from shoal.search.records import tables
from shoal.search.track import feed, watching
from shoal.search.track.again import track_again
from shoal.search.track.measures import told_numbers, words
from shoal.search.track.told import Records
from shoal.search.track.watching import Tracking
from tests.helpers.directories import TOY, written


class Kept:
    """A tracker that keeps what it is told, and can be down."""

    only_grows = goes_on = False
    place = "kept"
    down = False
    hold, let_go = threading.Event(), threading.Event()
    told: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, run, given, key) -> None: ...

    def gone(self) -> bool:
        return False

    def begin_anew(self) -> None: ...

    def row(self, row: Row) -> None:
        if Kept.down and row.member == 1:
            raise ConnectionError("no tracker here")
        Kept.told.append((row.step, row.member))

    def copied(self, member, copies) -> None: ...

    def best(self, member, folder) -> None: ...

    def flush(self) -> None: ...

    def close(self, status) -> None:
        if Kept.hold.is_set():
            Kept.let_go.wait(60)


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    Kept.told, Kept.down = [], False
    Kept.hold.clear()
    Kept.let_go.clear()
    monkeypatch.setitem(feed.TRACKERS_BY_KIND, "tensorboard", Kept)
    yield
    Kept.let_go.set()


@pytest.fixture
def run(tmp_path):
    return written(tmp_path / "run", 5, "track=tensorboard")


def tell(tracking: Tracking, *parts: int) -> None:
    for part in parts:
        tracking.recorded(part)
    while not tracking.parts.empty() or tracking.last < parts[-1]:
        time.sleep(0.01)


def until(said: list, lines: int, seconds: float = 60.0) -> None:
    """Wait until so many lines are there, or the seconds are over."""
    end = time.monotonic() + seconds
    while len(said) < lines and time.monotonic() < end:
        time.sleep(0.01)


def test_what_a_tracker_did_not_take_is_sent_once_it_is_back(run) -> None:
    said: list[str] = []
    with Tracking(run, Store(run.directory), said.append) as tracking:
        Kept.down = True
        tell(tracking, 1, 2)
        until(said, 1)
        Kept.down = False
        tell(tracking, 3)
    assert said == ["track: tensorboard takes nothing: no tracker here"]
    assert Kept.told == [(step, member) for step in (4, 8, 12) for member in range(4)]


def test_a_run_ends_without_a_tracker_and_shoal_track_sends_the_rest(run) -> None:
    said: list[str] = []
    with Tracking(run, Store(run.directory), said.append) as tracking:
        tell(tracking, 1, 2)
        until(Kept.told, 8)  # of two rounds and four members
        until(said, 1, 0.2)  # nothing: the second round is marked as sent by now
        Kept.down = True
        tell(tracking, 3, 4, 5)
    assert said[1:] == [f"track: the last rounds are missing; `shoal track {run.directory}` sends them"]
    with pytest.raises(RunFailed, match="track: tensorboard takes nothing: no tracker here"):
        track_again(run, Store(run.directory))
    Kept.down, Kept.told = False, []
    assert track_again(run, Store(run.directory)) == ["kept"]
    assert Kept.told == [(step, member) for step in (12, 16, 20) for member in range(4)]


def test_a_slow_tracker_does_not_hold_the_run(run, monkeypatch) -> None:
    monkeypatch.setattr(watching, "SECONDS_FOR_TRACKERS", 0.2)
    Kept.hold.set()
    said: list[str] = []
    began = time.monotonic()
    with Tracking(run, Store(run.directory), said.append) as tracking:
        tracking.recorded(1)
    assert time.monotonic() - began < 30 and "shoal track" in said[0]


def test_a_broken_record_is_one_line_and_the_run_goes_on(run) -> None:
    Store(run.directory).write("metrics.parquet/part-000001.parquet", b"no table")
    said: list[str] = []
    with Tracking(run, Store(run.directory), said.append) as tracking:
        tell(tracking, 1)
    assert "is broken" in said[0] and Kept.told == []


def test_records_tell_mixtures_and_the_hyperparameters_of_a_score(run) -> None:
    store, records = Store(run.directory), Records(Store(run.directory))
    shares = MixtureAccount([GroupMixture("code", 0.75, 1, 9, [], [])], "", 0, 0, 0)
    tables.write_mixing(store, 2, [Row(1, 2, 8, mixture=shares)])
    told = records.told(2)
    assert [row.mixture.groups[0].proportion for row in told.rows if row.mixture] == [0.75]
    changed = next(each for each in tables.read_table_rows(store, "lineage.parquet") if each["round"] == 1)
    row = told.rows[changed["member"]]
    assert dict(row.hyperparameters) == tables.json.loads(changed["after"])
    before = records.told(1).rows[changed["member"]]
    assert dict(before.hyperparameters) == tables.json.loads(changed["before"])


def test_what_is_told_of_a_report_is_finite_and_named(run) -> None:
    shares = MixtureAccount([GroupMixture("code", 0.75, 1, 9, [], [])], "", 0, 0, 0)
    settings: dict[str, Any] = {"h0": 0.5, "kind": "x", "inner": {"rate": 2, "flag": True}}
    row = Row(0, 1, 4, score=float("nan"), train_loss=0.5, losses={"code": 1.5}, kept=0.5, mixture=shares)
    row = row._replace(hyperparameters=settings, measures={"accuracy_code": 0.25})
    assert dict(told_numbers(run, row)) == {
        "train_loss": 0.5,
        "loss/code": 1.5,
        "accuracy_code": 0.25,
        "proportion/code": 0.75,
        "kept": 0.5,
        "hyperparameters/h0": 0.5,
        "hyperparameters/inner.rate": 2.0,
    }
    assert words(row) == {"kind": '"x"', "inner.flag": "true"}


def test_bad_input_names_the_key(tmp_path, monkeypatch) -> None:
    with pytest.raises(InputError, match=r"track\.0\.kind: must be one of tensorboard, mlflow, wandb"):
        load_run(TOY, ["track=tensorbord"])
    with pytest.raises(InputError, match=r"track: event files"):
        load_run(TOY, ["track=tensorboard", "directory=s3://bucket/run"])
    with pytest.raises(InputError, match=r"track: a password has no place"):
        load_run(TOY, ["track={kind: mlflow, uri: 'http://me:secret@host'}"])
    monkeypatch.setattr(start, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"track: wandb needs the package wandb; `pip install 'shoal\[wandb\]'`"
    ):
        load_run(TOY, ["track=wandb"])
