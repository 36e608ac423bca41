"""Shoal on the toy, measured as the stock systems are: from the tuner's start to its end, in a given Ray."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import train

from benchmarks.parts.processes import PROCESS, first_starts, note_start, processes_started, starts
from shoal.policies.population import Order
from shoal.search.config.run import Run
from shoal.search.driver.population import train_population
from shoal.search.messages import Row
from shoal.search.records import directory
from shoal.search.records.lineage import read_lineage
from shoal.search.worker import brood
from shoal.search.worker.first import train_brood


class Silent:
    def say(self, line: str) -> None: ...

    def failed(self, row: Row, trace: str) -> None: ...

    def round(self, round_: int, rows: Sequence[Row], orders: Sequence[Order]) -> None: ...


SHAPES = {  # broods and workers of each; where the weights of a copy go from and to
    "shoal": (1, 2),
    "shoal_within": (1, 1),
    "shoal_between": (2, 1),
}


def toy(folder: str, members: int, steps: int, interval: int, seed: int, shape: str = "shoal") -> Run:
    unit = {"kind": "float", "low": 0.0, "high": 1.0}
    return Run.model_validate(
        {
            "name": "toy",
            "directory": folder,
            "seed": seed,
            "trainable": "toy",
            "training": {"steps": steps},
            "hyperparameters": {"h0": unit, "h1": unit},
            "population": {"members": members, "interval": interval},
            "cluster": dict(zip(("broods", "workers_per_brood"), SHAPES[shape], strict=True)),
        }
    )


@contextlib.contextmanager
def exploits_noted(folder: str) -> Iterator[None]:
    """Write down how long a round with a copy into this worker took, from its report until it trains."""
    find_way, follow, train_teams = brood.way_to_orders, brood.follow, brood.train_teams
    said, copied = 0.0, False

    def find_noted(*arguments: Any, **named: Any) -> Any:
        way = find_way(*arguments, **named)
        return SimpleNamespace(next=partial(next_noted, way), settle=way.settle)

    def next_noted(way: Any, *arguments: Any) -> Any:
        nonlocal said
        said = time.perf_counter()
        return way.next(*arguments)

    def follow_noted(*arguments: Any) -> set[int]:
        nonlocal copied
        given: set[int] = follow(*arguments)
        copied = bool(given)
        return given

    def train_noted(*arguments: Any) -> Any:
        nonlocal copied
        if copied:
            with (Path(folder) / f"{PROCESS}.spent").open("a") as file:
                file.write(f"{time.perf_counter() - said}\n")
        copied = False
        return train_teams(*arguments)

    brood.way_to_orders, brood.follow, brood.train_teams = find_noted, follow_noted, train_noted
    try:
        yield
    finally:
        brood.way_to_orders, brood.follow, brood.train_teams = find_way, follow, train_teams


def run_toy(members: int, steps: int, interval: int, seed: int, shape: str = "shoal") -> dict[str, Any]:
    """Train the toy and return wall time, exploits, processes that exploits started, best score."""
    with tempfile.TemporaryDirectory() as folder:
        run = toy(f"{folder}/run", members, steps, interval, seed, shape)
        noted = f"{folder}/starts"

        def loop(settings: dict[str, Any]) -> None:
            note_start(noted, "worker", f"{settings['brood']}-{train.get_context().get_world_rank()}")
            with exploits_noted(noted):
                train_brood(settings)

        store = directory.create(run)
        store.make("../starts")
        began = time.time()
        outcome = train_population(run, Silent(), loop)
        ended, events = time.time(), starts(noted)
        spent = [float(line) for path in Path(noted).glob("*.spent") for line in path.read_text().splitlines()]
        copies = [event for event in read_lineage(store) if event.parent is not None]
        return {
            "wall_seconds": ended - began,
            "startup_seconds": max(event["time"] for event in first_starts(events).values()) - began,
            "exploits": len(copies),
            "exploits_decided": outcome.exploits,
            "processes_started": processes_started(events),
            "best_score": outcome.best_score,
            "ms_per_exploit": 1000 * statistics.median(spent) if spent else None,
        }
