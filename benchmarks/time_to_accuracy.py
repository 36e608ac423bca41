"""What it takes to reach the full data's result: all rows, RS2, SeTa, InfoBatch and LinUpper.

Every method trains the same network from the same first weights, in two ways: for as many epochs as the full
data's run, as the papers do, which trains on fewer rows; and on as many rows as that run, with its schedule of
the learning rate told the length. A row that is trained on costs the same in all of them, and since losses
come from the training steps themselves scoring costs no forward passes; planning is in the seconds, evaluation
is not. Seconds are those of one core, which is what each run has. The target is the lower end of the interval
of the full data's final score. The last line is one JSON list.
"""

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.parts.tasks import digits, text
from benchmarks.quality import interval
from shoal.policies.sampling.dynamic import LinUpper
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.policies.sampling.interface import Rule
from shoal.policies.sampling.random_subset import RandomSubset
from shoal.policies.sampling.seta import SeTa
from shoal.search.members.sampled import SampledBatches, sample_arrays
from shoal.trainables.batches import Shuffled
from shoal.trainables.language import LanguageModel
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy
from shoal.trainables.settings import DecoderShape, Recipe

METHODS: dict[str, Rule] = {
    "full": RandomSubset(1.0),
    "RS2 10 %": RandomSubset(0.1),
    "RS2 30 %": RandomSubset(0.3),
    "RS2 50 %": RandomSubset(0.5),
    "SeTa": SeTa(groups=5, window=3),
    "InfoBatch": InfoBatch(0.5),
    "LinUpper": LinUpper(0.4),
}
LOOKS = 20  # evaluations of a run
ROW = "  {:<14}{:<11}{:>9}{:>9}{:>10}{:>10}{:>28}{:>9}"


@dataclass(frozen=True)
class Task:
    """`make(seed, steps)` gives a member on plain `Shuffled` batches; its score is read off by `judge`."""

    name: str
    make: Callable[[int, int], Network]
    epochs: int
    judge: Callable[[Network], float]
    unit: str


class ConvNet(Network):
    """Two convolutions and a linear layer: 6 thousand weights."""

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)),
            nn.Conv2d(1, 8, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 5, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 10),
        )

    def loss(self, module: nn.Module, batch: Any, numbers: Any) -> torch.Tensor:
        images, labels = batch
        return cross_entropy(module(images), labels, numbers["label_smoothing"])

    def score(self, module: nn.Module, rows: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, labels = rows
        return (module(images).argmax(dim=-1) == labels).double().mean(), {}


def make_digits(folder: str, seed: int, steps: int) -> Network:
    parts = digits(folder)
    held_out = tuple(np.concatenate(each) for each in zip(parts["validation"], parts["test"], strict=True))
    recipe = Recipe(steps=steps, warmup=20, final_rate=0.0, weight_decay=0.01)
    batches = Shuffled(parts["train"], 64, seed)
    return ConvNet(recipe, {"learning_rate": 3e-3}, batches, {"test": held_out}, seed)


@cache
def sentences(corpus: str, rows: int) -> np.ndarray:
    """Return the first rows of each group of the demo's corpus, the same number of each."""
    streams, _ = text(corpus)
    return np.concatenate([stream.rows[: rows // len(streams)] for stream in streams.values()])


def make_decoder(corpus: str, rows: int, seed: int, steps: int) -> Network:
    shape = DecoderShape(vocabulary=257, sequence_length=64, layers=2, heads=2, width=48)
    recipe = Recipe(steps=steps, warmup=20, final_rate=0.0)
    batches = Shuffled(sentences(corpus, rows), 8, seed)
    held_out = {"test": {group: each[:64] for group, each in text(corpus)[1]["test"].items()}}
    return LanguageModel(recipe, {"learning_rate": 5e-3}, batches, held_out, seed, shape=shape)


def tasks(mnist: str | None, corpus: str, full: bool) -> list[Task]:
    found = []
    if mnist:
        found.append(
            Task(
                "digits",
                lambda seed, steps: make_digits(mnist, seed, steps),
                40 if full else 20,
                lambda member: member.evaluate("test")[0],
                "test accuracy",
            )
        )
    rows, epochs = (12_000, 20) if full else (1_920, 8)
    found.append(
        Task(
            "text",
            lambda seed, steps: make_decoder(corpus, rows, seed, steps),
            epochs,
            lambda member: member.evaluate("test")[0],
            "minus test loss",
        )
    )
    return found


def train(task: Task, rule: Rule, equal_cost: bool, seed: int) -> dict[str, Any]:
    """Train one member; return its score, what it took, and its scores on the way with what each took."""
    member = task.make(seed, 1)
    assert isinstance(member.batches, Shuffled)
    rows, batch = member.batches.rows, member.batches.batch
    budget = task.epochs * (rows // batch)  # steps of the run on all rows
    epochs = None if equal_cost else float(task.epochs)
    member.batches = sampled = sample_arrays(member.batches, rule, seed, budget, epochs)
    seconds, path, look = 0.0, [], max(1, budget // LOOKS)
    while True:
        began = time.process_time()
        steps, planned = ahead(sampled, batch, budget, None if equal_cost else task.epochs)
        if not steps:
            break
        told(member, planned)
        for part in pieces(steps, look, member.trained):
            member.train(part)
            seconds += time.process_time() - began
            if member.trained % look == 0:
                path.append((member.trained * batch, seconds, task.judge(member)))
            began = time.process_time()
    path.append((member.trained * batch, seconds, task.judge(member)))
    return {"rows": member.trained * batch, "seconds": seconds, "score": path[-1][2], "path": path}


def ahead(sampled: SampledBatches, batch: int, budget: int, epochs: int | None) -> tuple[int, int]:
    """Return the steps of the running epoch, and how many the whole training is now expected to have."""
    pool, done = sampled.pools[0], sampled.pace.drawn
    left = max(pool.left(), batch)  # what does not fill a batch is the next epoch's
    if epochs is None:
        return min(left // batch, budget - done), budget
    if pool.epoch >= epochs:
        return 0, done
    to_come = (epochs - pool.epoch - 1) * int(pool.keep.sum()) // batch
    return left // batch, done + left // batch + to_come


def told(member: Network, steps: int) -> None:
    """Tell the schedule of the learning rate how long the training now is."""
    member.base = replace(member.base, steps=steps)
    member.adopt(member.hyperparameters)


def pieces(steps: int, look: int, done: int) -> list[int]:
    """Cut steps so that each multiple of `look` ends a piece."""
    ends = sorted({*range((done // look + 1) * look, done + steps, look), done + steps})
    return np.diff([done, *ends]).tolist()


def one(job: tuple[str, str, bool, int, argparse.Namespace]) -> dict[str, Any]:
    """Run one method on one task with one seed; called in a process of its own."""
    name, method, equal_cost, seed, arguments = job
    torch.set_num_threads(1)
    found = tasks(arguments.mnist, arguments.corpus, arguments.full)
    task = next(task for task in found if task.name == name)
    return train(task, METHODS[method], equal_cost, seed)


def reached(run: dict[str, Any], target: float) -> tuple[float, float]:
    """Return the rows and the seconds at which a run first had the target; infinite if it never had."""
    for rows, seconds, score in run["path"]:
        if score >= target:
            return rows, seconds
    return math.inf, math.inf


def compare(runs: list[dict[str, Any]], full: list[dict[str, Any]], target: float) -> dict[str, Any]:
    """Return a method's numbers beside those of the full data, as medians over the seeds."""

    def over(name: str) -> float:
        return float(np.median([run[name] for run in runs]) / np.median([run[name] for run in full]))

    ours, theirs = (np.median([reached(run, target) for run in each], axis=0) for each in (runs, full))
    scores = [run["score"] for run in runs]
    low, high = interval(scores)
    to_target = [round(float(value), 3) if math.isfinite(value) else None for value in ours / theirs]
    return {
        "samples_over_full": to_target[0],
        "seconds_over_full": to_target[1],
        "used_samples_over_full": round(over("rows"), 3),
        "used_seconds_over_full": round(over("seconds"), 3),
        "score": round(float(np.mean(scores)), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "seeds_at_target": sum(math.isfinite(reached(run, target)[0]) for run in runs),
        "seeds": len(runs),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_accuracy", description=__doc__)
    parser.add_argument("--mnist", help="folder of MNIST's images-idx3-ubyte.gz and labels-idx1-ubyte.gz")
    parser.add_argument("--corpus", default="runs/corpus/quality", help="where the text is, or is to be built")
    parser.add_argument("--task", choices=["digits", "text"], help="both by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="10 seeds, twice the epochs, 12,000 rows of text")
    return parser.parse_args()


def measure(task: Task, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    seeds = range(10 if arguments.full else arguments.seeds)
    ways = [
        (method, equal) for equal in (False, True) for method in METHODS if not (equal and method == "full")
    ]
    jobs = [(task.name, method, equal, seed, arguments) for method, equal in ways for seed in seeds]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(one, jobs))
    runs = {way: found[place * len(seeds) : (place + 1) * len(seeds)] for place, way in enumerate(ways)}
    full = runs["full", False]
    target = interval([run["score"] for run in full])[0]
    print(f"\n{task.name}, {task.unit}: target {target:.4f}, {full[0]['rows']} rows in all", flush=True)
    print(ROW.format("method", "as many", "rows", "seconds", "rows to", "seconds to", "score", "reached"))
    rows = []
    for (method, equal), each in runs.items():
        numbers = compare(each, full, target)
        rows.append({"task": task.name, "method": method, "equal": "rows" if equal else "epochs", **numbers})
        show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    to_target = [
        "never" if value is None else f"{value:.2f}"
        for value in (row["samples_over_full"], row["seconds_over_full"])
    ]
    used = [f"{row[name]:.2f}" for name in ("used_samples_over_full", "used_seconds_over_full")]
    score = f"{row['score']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
    share = f"{row['seeds_at_target']}/{row['seeds']}"
    print(ROW.format(row["method"], row["equal"], *used, *to_target, score, share), flush=True)


def main() -> None:
    arguments = parse()
    rows = []
    for task in tasks(arguments.mnist, arguments.corpus, arguments.full):
        if arguments.task in (None, task.name):
            task.make(0, 1)  # builds the corpus before the processes want it
            rows += measure(task, arguments)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
