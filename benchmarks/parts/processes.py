"""What one run cost: its measurement, and the processes that hosted it, counted by themselves.

Every trainable, Train controller and Train worker writes a line when it begins, into a folder that the
run names. This sees each start once, needs no dashboard, and cannot miss a process that died young.
Not seen are helpers that Ray starts on its own account (queues, barriers, cleaners) and actors that Tune
starts ahead and never uses: stock systems are charged with rather fewer processes than they started.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROCESS = f"{os.getpid()}-{time.time_ns()}"  # set once a process, at import: a pid alone may come again
START_LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Measurement:
    wall_seconds: float
    exploits: int  # copies that a member received, by its own evidence
    processes_started: int  # after the first start of the population
    best_score: float
    members: int
    steps: int
    interval: int
    startup_seconds: float | None = None  # until the last member began; part of wall_seconds
    exploits_decided: int | None = None  # what the scheduler counted; None where it does not count
    exploits_skipped: int | None = None  # losers that the scheduler left alone for want of a checkpoint
    settings: str = ""
    ms_per_exploit: float | None = None  # from a receiver's report to its next training step, the median

    @property
    def ms_per_member_step(self) -> float:
        return 1000 * self.wall_seconds / (self.members * self.steps)

    @property
    def ms_after_start(self) -> float | None:
        """The same without start-up, which a short run mostly consists of and a long one hardly notices."""
        if self.startup_seconds is None:
            return None
        return 1000 * (self.wall_seconds - self.startup_seconds) / (self.members * self.steps)


def note_start(folder: str, role: str, trial: str, source: str = "") -> None:
    """Write that `role` of `trial` begins in this process, from the weights of trial `source` if any."""
    event = {"process": PROCESS, "role": role, "trial": trial, "source": source, "time": time.time()}
    with (Path(folder) / f"{PROCESS}.jsonl").open("a") as file:  # one writer a file: no lock needed
        file.write(json.dumps(event) + "\n")


def note_report(folder: str, trial: str) -> None:
    """Write that `trial` says its score now."""
    with (Path(folder) / f"{PROCESS}.reports").open("a") as file:
        file.write(json.dumps({"trial": trial, "time": time.time()}) + "\n")


def exploit_seconds(folder: str, events: list[dict[str, Any]]) -> list[float]:
    """Return how long each receiver of a copy took from its last report to its beginning anew."""
    lines = [line for path in Path(folder).glob("*.reports") for line in path.read_text().splitlines()]
    reports = [json.loads(line) for line in lines]
    found = []
    for event in (event for event in events if event["source"] and event["source"] != event["trial"]):
        said = [
            report["time"]
            for report in reports
            if report["trial"] == event["trial"] and report["time"] < event["time"]
        ]
        found.append(event["time"] - max(said))
    return found


def starts(folder: str) -> list[dict[str, Any]]:
    """Return every start, oldest first."""
    lines = [line for path in Path(folder).glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda event: event["time"])


def first_starts(events: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the start that began each role of each trial."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for event in events:
        first.setdefault((event["role"], event["trial"]), event)
    return first


def wait_for_starts(folder: str, role: str, trials: int) -> None:
    """Wait until `role` has begun in so many trials, so that a population starts together."""
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while sum(key[0] == role for key in first_starts(starts(folder))) < trials:
        if time.monotonic() > deadline:
            raise RuntimeError(f"Not all {trials} trials began within {START_LIMIT_SECONDS} s.")
        time.sleep(0.05)


def processes_started(events: list[dict[str, Any]]) -> int:
    """Count the processes beyond those in which each role of each trial first began."""
    first = {event["process"] for event in first_starts(events).values()}
    return len({event["process"] for event in events} - first)


def copies(events: list[dict[str, Any]]) -> int:
    """Count the starts from another trial's weights: exploits that truly happened."""
    return sum(bool(event["source"]) and event["source"] != event["trial"] for event in events)
