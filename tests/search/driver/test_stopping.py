"""A run as a whole ends by a score, by patience or by time, and a checkpoint knows how far that has come."""

import json
import math

import pytest

from shoal.search.checks.start import check_stop
from shoal.search.config.sections import Stop
from shoal.search.driver.stopping import Stopping
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.messages import Row
from tests.helpers.directories import TOY


def rows(*scores: float) -> list[Row]:
    return [Row(member, score=score) for member, score in enumerate(scores)]


def test_a_score_that_a_member_reaches_ends_the_run() -> None:
    stopping = Stopping(Stop(score=0.5), 2)
    stopping.hear(rows(0.1, 0.4))
    assert not stopping.reason
    stopping.hear(rows(math.nan, 0.5))
    assert stopping.reason == "a member has reached the score 0.5 (stop.score: 0.5)"


def test_patience_counts_reports_of_each_member_since_the_best_score() -> None:
    # 2 members, patience 2: four reports in a row without a better score
    stopping = Stopping(Stop(patience=2), 2)
    for scores in ((0.1, 0.3), (0.2, 0.3), (0.25, 0.31), (0.1, 0.31)):
        stopping.hear(rows(*scores))
        assert not stopping.reason, scores
    assert stopping.reports == 2, "0.31 again is no better"
    stopping.hear(rows(0.2, 0.3))
    assert stopping.reason == "no better score in 2 reports of each member (stop.patience)"


def test_one_slow_member_does_not_keep_the_run_from_its_end() -> None:
    stopping = Stopping(Stop(patience=3), 2)
    for _ in range(7):
        stopping.hear([Row(0, score=1.0)])
    assert stopping.reason


def test_minutes_are_counted_over_all_drivers_of_a_run(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("shoal.search.driver.stopping.time.monotonic", lambda: now[0])
    first = Stopping(Stop(minutes=1), 2)
    now[0] += 40
    first.hear(rows(0.1, 0.2))
    assert not first.reason
    again = Stopping.of(Stop(minutes=1), 2, json.loads(json.dumps(first.plain())))
    now[0] += 19
    again.hear(rows(0.1, 0.2))
    assert not again.reason and again.best == 0.2
    now[0] += 1
    again.hear(rows(0.1, 0.2))
    assert again.reason == "1 minutes are over (stop.minutes)"
    assert Stopping.of(Stop(minutes=1), 2, again.plain()).reason == again.reason


def test_a_run_without_stop_never_stops() -> None:
    stopping = Stopping(None, 2)
    stopping.hear(rows(0.1, 0.2))
    assert not stopping.reason


def test_bad_input_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"stop: one of minutes, score and patience must be given"):
        load_run(TOY, ["stop={}"])
    with pytest.raises(InputError, match=r"stop\.minutes: must be greater than 0, got 0"):
        load_run(TOY, ["stop.minutes=0"])
    run = load_run(TOY, ["stop.score=1"])
    assert check_stop(run.model_copy(update={"kind": "mixture"})).startswith("stop: ") and not check_stop(run)
