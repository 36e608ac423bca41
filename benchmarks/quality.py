"""How good the best member is at equal member-steps: random search, ASHA, and the rules of PBT.

Every method trains on the same data with the same budget of member-steps, and starts with the same members
and hyperparameters for the same seed; the member that is best on the validation rows is judged on the test
rows. Rates do not decay by themselves, so that schedules can be found, and the tasks are long enough that there
is one to find. All are ready at every twentieth of the run: one setting for all, not each one's best. Shoal's
rules decide here as they do on Ray, without Ray; Ray Tune's own scheduler decides ASHA. The last line is one
JSON object.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.parts.asha import train_by_asha
from benchmarks.parts.tasks import Task, tasks
from shoal.policies import population
from shoal.policies.bayesian import Bayesian
from shoal.policies.exploit import Truncation
from shoal.policies.explore import Perturb
from shoal.policies.fire import Fire
from shoal.policies.frequencies import MultipleFrequency
from shoal.policies.population import Report
from shoal.policies.rules import LEFT_ALONE, Rules
from shoal.policies.standings import rank
from shoal.search.worker.brood import follow
from shoal.search.worker.teams import teams
from shoal.trainables.member import Member

RANDOM = "random search"
METHODS = {
    RANDOM: LEFT_ALONE,
    "PBT": Rules(Truncation(0.25), Perturb(0.25, (0.8, 1.25))),
    "MF-PBT": Rules(MultipleFrequency((1, 2, 4, 8)), Perturb(0.25, (0.8, 1.25))),
    "FIRE PBT": Rules(Fire(), Perturb(0.25, (0.8, 1.25))),
    "PB2": Rules(Truncation(0.25), Bayesian()),
    "stock-rule PBT": Rules(Truncation(0.25), Perturb(0.25, (0.8, 1.2))),
}
ASHA = "ASHA through Tune"


def train(task: Task, rules: Rules, seed: int) -> Member:
    """Train a population in this process; return the member that is best on the validation rows."""
    state = population.start(task.space, task.members, seed)
    members = {
        number: task.make(known.hyperparameters, 1000 * seed + number) for number, known in enumerate(state)
    }
    groups = teams(members, None)
    scores: dict[int, float] = {}
    rounds = task.steps // task.interval
    for round_ in range(1, rounds + 1):
        rows = {number: row for team in groups for number, row in team.train(task.interval).items()}
        scores = {number: row.score for number, row in rows.items()}
        reports = [Report(number, round_ * task.interval, score) for number, score in scores.items()]
        due = rules if round_ < rounds else LEFT_ALONE
        state, orders = population.decide(due, task.space, state, reports, seed)
        follow(None, round_, orders, groups)  # all members are here: nothing is exchanged
    return members[rank(scores)[0]]


def one(job: tuple[str, str, int, argparse.Namespace]) -> tuple[float, float]:
    """Run one method on one task with one seed, in a process of its own; return validation and test."""
    name, method, seed, arguments = job
    torch.set_num_threads(1)
    task = next(task for task in chosen(arguments) if task.name == name)
    best = train_by_asha(task, seed) if method == ASHA else train(task, METHODS[method], seed)
    found = {}
    for split in ("validation", "test"):
        score, losses = best.evaluate(split)
        found[split] = losses.get("accuracy", -score)
    return found["validation"], found["test"]


def chosen(arguments: argparse.Namespace) -> list[Task]:
    found = [task for task in tasks(arguments.mnist, arguments.corpus) if arguments.task in (None, task.name)]
    return [
        replace(task, interval=arguments.interval or task.interval, members=arguments.members or task.members)
        for task in found
    ]


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(seed)
    means = rng.choice(np.asarray(values), (5000, len(values))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def summary(values: Sequence[float]) -> dict[str, Any]:
    low, high = interval(values)
    return {
        "mean": round(float(np.mean(values)), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "seeds": len(values),
        "values": [round(value, 4) for value in values],
    }


def better(values: Sequence[float], others: Sequence[float], higher: bool) -> dict[str, Any]:
    """Return by how much a method is better than another with the same seeds: more than 0 is better."""
    sign = 1 if higher else -1
    return summary([sign * (value - other) for value, other in zip(values, others, strict=True)])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--mnist", help="folder of MNIST's images-idx3-ubyte.gz and labels-idx1-ubyte.gz")
    parser.add_argument("--corpus", default="runs/corpus/quality", help="where the text is, or is to be built")
    parser.add_argument("--task", choices=["digits", "text"], help="both by default")
    parser.add_argument("--interval", type=int, help="steps between ready points, in place of the task's own")
    parser.add_argument("--members", type=int, help="in place of the task's own")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first", type=int, default=0, help="the first seed; settings were chosen on 100 to 102"
    )
    parser.add_argument("--full", action="store_true", help="20 seeds")
    parser.add_argument("--only", action="append", choices=[*METHODS, ASHA], help="may be given again")
    return parser.parse_args()


def measure(task: Task, methods: Sequence[str], seeds: range, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train by every method with every seed, as many at once as there are cores; print and return the sums."""
    jobs = [(task.name, method, seed, arguments) for method in methods for seed in seeds]
    found: dict[str, Any] = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context("spawn")) as pool:
        judged = pool.map(one, jobs)
        for method in methods:
            own = [next(judged) for _ in seeds]
            tests, validations = ([pair[place] for pair in own] for place in (1, 0))
            found[method] = summary(tests) | {"validation": summary(validations)}
            if method != RANDOM and RANDOM in found:
                gain = better(tests, found[RANDOM]["values"], task.higher)
                found[method]["over random search"] = gain
            print(line(method, found[method]), flush=True)
    return found


def line(method: str, found: dict[str, Any]) -> str:
    told = f"  {method:<20}{found['mean']:.4f}  ({found['low']:.4f} to {found['high']:.4f})"
    gain = found.get("over random search")
    if gain is None:
        return told
    said = "beats" if gain["low"] > 0 else "LOSES TO" if gain["high"] < 0 else "level with"
    return f"{told}  {gain['mean']:+.4f}  ({gain['low']:+.4f} to {gain['high']:+.4f})  {said} random search"


def main() -> None:
    arguments = parse()
    seeds = range(arguments.first, arguments.first + (20 if arguments.full else arguments.seeds))
    methods = arguments.only or [*METHODS, ASHA]
    results: dict[str, dict[str, Any]] = {}
    for task in chosen(arguments):
        # builds the corpus, which all processes then read
        task.make({name: domain.sample(np.random.default_rng(0)) for name, domain in task.space.items()}, 0)
        print(f"\n{task.name}: {task.members} members x {task.steps} steps, ready every {task.interval}")
        print(f"  {'method':<20}test {task.unit}, and how much better, seed by seed", flush=True)
        results[task.name] = measure(task, methods, seeds, arguments)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
