"""The arithmetic of the benchmarks, on numbers that can be checked by hand."""

import json

import pytest

from benchmarks import processes
from benchmarks.exploit import median
from benchmarks.quality import better, interval, summary


def start(process: str, trial: str, time: float, source: str = "") -> dict:
    return {"process": process, "role": "trial", "trial": trial, "source": source, "time": time}


def test_an_exploit_lasts_from_the_receivers_last_report(tmp_path) -> None:
    said = [("a", 10.0), ("b", 11.0), ("a", 12.0), ("b", 13.0), ("a", 20.0)]
    lines = [json.dumps({"trial": trial, "time": time}) for trial, time in said]
    (tmp_path / "1.reports").write_text("\n".join(lines))
    # b goes on from a's weights 2.5 s after it reported; a goes on from its own, which is no exploit
    events = [
        start("1", "a", 1.0),
        start("2", "b", 1.0),
        start("3", "b", 15.5, "a"),
        start("4", "a", 16.0, "a"),
    ]
    assert processes.exploit_seconds(str(tmp_path), events) == [2.5]
    assert processes.copies(events) == 1 and processes.processes_started(events) == 2


def test_a_median_passes_over_what_is_missing() -> None:
    assert median([3.0, None, 1.0, 2.0]) == 2.0
    assert median([None, None]) is None
    assert median([4, 1, 3, 2]) == 2  # a count that occurred


def test_an_interval_holds_the_mean_and_narrows() -> None:
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert 1.0 < low < 3.0 < high < 5.0
    assert interval([2.0, 2.0]) == (2.0, 2.0)
    assert summary([0.5, 1.5])["mean"] == pytest.approx(1.0)


def test_methods_are_compared_seed_by_seed() -> None:
    # the seeds differ by far more than the methods: 1 and 2, 9 and 10 against 1.5 and 2.5, 9.5 and 10.5
    first, second = [1.0, 2.0, 9.0, 10.0], [1.5, 2.5, 9.5, 10.5]
    found = better(first, second, higher=False)
    assert (found["mean"], found["low"], found["high"]) == (0.5, 0.5, 0.5)
    assert better(first, second, higher=True)["mean"] == -0.5
