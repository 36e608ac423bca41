"""What a report costs as the population grows: toy members on Ray, and the scheduler alone without it.

On Ray a round's wall time is divided by its members: training the toy costs microseconds, so what is left
is reports, the decision, what is recorded of it, copies and checkpoints. The scheduler alone is fed the same
messages in this process, up to sizes that two cores could not host. The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.parts.shoal_toy import Silent, toy
from shoal.cluster.session import session
from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.policies.population import Order, Report
from shoal.search.driver.asynchronous import Arrivals
from shoal.search.driver.conductor import Conductor
from shoal.search.driver.population import train_population
from shoal.search.messages import Message, Row
from shoal.search.records import directory

INTERVAL = 4
ROW = "{:>8}{:>24}{:>24}{:>24}{:>24}"


class Clock(Silent):
    """Notes when each round was decided."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def round(self, round_: int, rows: Sequence[Row], orders: Sequence[Order]) -> None:
        self.times.append(time.perf_counter())


def on_ray(members: int, rounds: int) -> list[float]:
    """Return the ms per report of each round but the first, which holds the start."""
    with tempfile.TemporaryDirectory() as folder, session():
        run = toy(f"{folder}/run", members, rounds * INTERVAL, INTERVAL, seed=0)
        directory.create(run)
        clock = Clock()
        train_population(run, clock)
    return [
        1000 * (after - before) / members for before, after in zip(clock.times, clock.times[1:], strict=False)
    ]


def scheduler_alone(members: int, rounds: int, kind: type[Conductor] = Conductor) -> list[float]:
    """Return the ms per member of a round in the conductor: decisions, records, checkpoint of its state.

    An asynchronous one gets each member's report by itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = toy(f"{folder}/run", members, rounds * INTERVAL, INTERVAL, seed=0)
        store = Store(run.directory)
        state = population.start(run.space(), members, run.seed)
        conductor = kind(run, store, run.space(), run.rules(), state, lambda *orders: None, Silent())
        spent = []
        for round_ in range(1, rounds + 1):
            rows = [row(member, round_) for member in range(members)]
            messages = [Message([one]) for one in rows] if kind is Arrivals else [Message(rows)]
            began = time.perf_counter()
            for message in messages:
                conductor.receive(message)
            conductor.wait()
            spent.append(1000 * (time.perf_counter() - began) / members)
    return spent


def decision_alone(members: int, rounds: int) -> list[float]:
    """Return the ms per member of the pure decision."""
    run = toy("", members, rounds * INTERVAL, INTERVAL, seed=0)
    space, rules = run.space(), run.rules()
    state, spent = population.start(space, members, run.seed), []
    for round_ in range(1, rounds + 1):
        reports = [Report(member, round_ * INTERVAL, score(member, round_)) for member in range(members)]
        began = time.perf_counter()
        state, _ = population.decide(rules, space, state, reports, run.seed)
        spent.append(1000 * (time.perf_counter() - began) / members)
    return spent


def row(member: int, round_: int) -> Row:
    return Row(member, round_, round_ * INTERVAL, score=score(member, round_), train_loss=0.0)


def score(member: int, round_: int) -> float:
    """Return a number that shuffles the ranking from round to round."""
    return (member * 0.6180339887 + round_ * 0.7548776662) % 1.0


def summary(spent: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(spent), 4),
        "low": round(min(spent), 4),
        "high": round(max(spent), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--full", action="store_true", help="60 rounds")
    arguments = parser.parse_args()
    rounds = 60 if arguments.full else arguments.rounds
    results: dict[str, dict[str, Any]] = {}
    print(f"medians over {rounds} rounds, in ms (low to high)")
    print(
        ROW.format(
            "members", "per report on Ray", "scheduler per member", "decision per member", "asynchronous"
        )
    )
    for members in (8, 64, 512, 4096):
        found = {
            "scheduler_ms_per_member": summary(scheduler_alone(members, rounds)),
            "decision_ms_per_member": summary(decision_alone(members, rounds)),
            # each of 4,096 reports looks at all members, so fewer rounds
            "asynchronous_ms_per_member": summary(scheduler_alone(members, max(3, rounds // 4), Arrivals)),
        }
        if members <= 512:
            found["ms_per_report"] = summary(on_ray(members, rounds))
        results[str(members)] = found
        names = (
            "ms_per_report",
            "scheduler_ms_per_member",
            "decision_ms_per_member",
            "asynchronous_ms_per_member",
        )
        print(ROW.format(members, *(told(found.get(name)) for name in names)), flush=True)
    print(json.dumps(results))


def told(found: dict[str, float] | None) -> str:
    return "not run" if found is None else f"{found['median']:.3f} ({found['low']:.3f}-{found['high']:.3f})"


if __name__ == "__main__":
    main()
