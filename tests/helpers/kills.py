"""Kill runs of the toy at random moments, drivers or workers, and compare what they end with to a plain loop's.

    python -m tests.helpers.kills --drivers 100 --workers 20

Every life goes on where the last one was killed. A run is right if its lineage and its scores, of every member
in every round, equal those of a population without Ray, and if it came to its end and exported its best.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shoal.search.records.tables import METRICS
from tests.helpers.runs import TOY, events, scores, start, without_ray

ROUNDS = 400
EACH = 10  # kills of a driver that a run has to survive
WORKERS_EACH = 4  # kills of a worker
STARTING = 0.25  # share of the kills that come while a life starts, by the clock
LONGEST_START = 8.0  # seconds
PATIENCE = 300.0  # seconds for a life to come to its next round
SHAPES = (
    "cluster={broods: 1, restarts: 9}",
    "cluster={broods: 2, restarts: 9}",
    "cluster={broods: 1, workers_per_brood: 2, restarts: 9}",
)


@dataclass
class Life:
    """A run that is killed again and again."""

    directory: Path
    changes: list[str]
    rng: random.Random
    log: list[str] = field(default_factory=list)
    left: set[int] = field(default_factory=set)  # processes that may have outlived their driver

    def begin(self) -> subprocess.Popen[str]:
        return start("run", TOY, f"directory={self.directory}", *self.changes, "--resume", "auto")

    def reached(self) -> int:
        parts = [part.name for part in Path(self.directory, METRICS).glob("part-*.parquet")]
        return int(max(parts)[5:11]) if parts else 0

    def wait_for(self, round_: int, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.reached() < round_ and process.poll() is None:
            assert time.monotonic() < deadline, f"no round {round_} in {self.directory}: {self.log}"
            time.sleep(0.003)

    def kill_driver(self, target: int) -> None:
        """Let a life come to a round, or only begin, and kill its driver."""
        process = self.begin()
        if self.rng.random() < STARTING:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.rng.uniform(0.0, LONGEST_START))
        else:
            self.wait_for(target, process)
            time.sleep(self.rng.uniform(0.0, 0.05))
        below = descendants(process.pid)
        assert process.poll() in (None, 0), process.communicate()[0]
        process.kill()
        process.wait()
        self.log.append(f"driver at round {self.reached()}")
        self.left |= below
        if self.rng.random() < 0.5:  # else the next life begins while the last one's workers may still write
            end(below)

    def kill_workers(self, targets: list[int]) -> None:
        """Kill one worker after another of one life, which then comes to its end."""
        process = self.begin()
        for target in targets:
            self.wait_for(target, process)
            time.sleep(self.rng.uniform(0.0, 0.05))
            workers = [each for each in descendants(process.pid) if "RayTrainWorker" in command(each)]
            if workers and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.rng.choice(sorted(workers)), signal.SIGKILL)
                    self.log.append(f"worker at round {self.reached()}")
            self.wait_for(min(self.reached() + 20, ROUNDS), process)
        said = process.communicate()[0]
        assert process.returncode == 0, said

    def end(self) -> None:
        """Let the run come to its end."""
        process = self.begin()
        said = process.communicate()[0]
        end(self.left)
        assert process.returncode == 0, said

    def differs(self) -> list[str]:
        """Return in what the run is other than a plain loop."""
        copies, told = without_ray(TOY, *self.changes)
        found = [event for event in events(self.directory) if event.event != "start"]
        lineage = [(event.member, event.parent, event.after) for event in found]
        expected = [(order.member, order.donor, order.hyperparameters) for order in copies]
        ended = (self.directory / "best/model.safetensors").exists()
        return [
            *(["scores"] if scores(self.directory) != told else []),
            *(["lineage"] if sorted(lineage, key=repr) != sorted(expected, key=repr) else []),
            *([] if ended and '"done"' in (self.directory / "summary.json").read_text() else ["end"]),
        ]


def descendants(process: int) -> set[int]:
    """Return the processes that a process has started, and those that they have."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(place.parent.name)] = int(
                place.read_text("utf-8", "replace").rpartition(")")[2].split()[1]
            )
    found, new = set(), {process}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def command(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text("utf-8", "replace")
    return ""


def end(processes: set[int]) -> None:
    """End what a killed driver has left behind, of which Ray ends most by itself."""
    for process in processes:
        if "ray" in command(process):  # the number may be somebody else's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def life(folder: Path, number: int, seed: int) -> Life:
    changes = [f"seed={number}", f"training.steps={4 * ROUNDS}", SHAPES[number % len(SHAPES)]]
    changes += ["checkpoint.every=3"] if number % 4 == 3 else []
    return Life(folder / f"run-{number}", changes, random.Random(f"{seed} {number}"))


def drivers(folder: Path, kills: int, seed: int, say: Callable[[str], None] = print) -> list[Life]:
    """Kill so many drivers; return the runs that are other than they must be."""
    wrong = []
    for number, first in enumerate(range(0, kills, EACH)):
        one, began = life(folder, number, seed), time.monotonic()
        for target in sorted(one.rng.sample(range(1, ROUNDS - 10), min(EACH, kills - first))):
            one.kill_driver(target)
        one.end()
        wrong += tell(one, number, began, say)
    return wrong


def workers(folder: Path, kills: int, seed: int, say: Callable[[str], None] = print) -> list[Life]:
    """Kill so many workers; return the runs that are other than they must be."""
    wrong = []
    for number, first in enumerate(range(0, kills, WORKERS_EACH), start=1000):
        one, began = life(folder, number, seed), time.monotonic()
        count = min(WORKERS_EACH, kills - first)
        one.kill_workers(sorted(one.rng.sample(range(1, ROUNDS - 20 * count), count)))
        wrong += tell(one, number, began, say)
    return wrong


def tell(one: Life, number: int, began: float, say: Callable[[str], None]) -> list[Life]:
    found = one.differs()
    state = f"differs in {', '.join(found)}" if found else "the same lineage, scores and end"
    say(
        f"run {number}: {len(one.log)} killed ({'; '.join(one.log)}): {state}, {time.monotonic() - began:.0f} s"
    )
    return [one] if found else []


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--drivers", type=int, default=100)
    asked.add_argument("--workers", type=int, default=20)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="shoal-kills-") as folder:
        wrong = drivers(Path(folder), given.drivers, given.seed) + workers(
            Path(folder), given.workers, given.seed
        )
    print(f"{given.drivers} drivers and {given.workers} workers killed: {len(wrong)} runs differ")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
