"""Shoal on the toy, measured as the stock systems are: from the tuner's start to its end, in a given Ray."""

import tempfile
import time
from collections.abc import Sequence
from typing import Any

from ray import train

from benchmarks.processes import first_starts, note_start, processes_started, starts
from policies.population import Order
from search import directory
from search.brood import train_brood
from search.config import Run
from search.lineage import read_lineage
from search.population import train_population


class Silent:
    def failed(self, row: dict[str, Any], trace: str) -> None: ...

    def round(self, round_: int, rows: Sequence[dict[str, Any]], orders: Sequence[Order]) -> None: ...


def toy(folder: str, members: int, steps: int, interval: int, seed: int) -> Run:
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
            "cluster": {"broods": 1, "workers_per_brood": 2},
        }
    )


def run_toy(members: int, steps: int, interval: int, seed: int) -> dict[str, Any]:
    """Train the toy and return wall time, exploits, processes that exploits started, best score."""
    with tempfile.TemporaryDirectory() as folder:
        run = toy(f"{folder}/run", members, steps, interval, seed)
        noted = f"{folder}/starts"

        def loop(settings: dict[str, Any]) -> None:
            note_start(noted, "worker", f"{settings['brood']}-{train.get_context().get_world_rank()}")
            train_brood(settings)

        store = directory.create(run)
        store.make("../starts")
        began = time.time()
        outcome = train_population(run, Silent(), loop)
        ended, events = time.time(), starts(noted)
        copies = [event for event in read_lineage(store) if event.parent is not None]
        return {
            "wall_seconds": ended - began,
            "startup_seconds": max(event["time"] for event in first_starts(events).values()) - began,
            "exploits": len(copies),
            "exploits_decided": outcome.exploits,
            "processes_started": processes_started(events),
            "best_score": outcome.best_score,
        }
