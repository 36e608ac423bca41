"""Does a population find good numbers of an objective? Beside five fixed values, and beside random search.

One number of an objective is searched, all else is equal. Populations, random searches and fixed values train
as many steps a member; the best member by validation rows is scored on test rows. No Ray: members train in one
stack. The settings were chosen on seed 77.
The last line printed is one JSON object with a key for each task.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.quality import summary
from shoal.policies import population
from shoal.policies.exploit import Truncation
from shoal.policies.explore import Perturb
from shoal.policies.population import Report
from shoal.policies.rules import LEFT_ALONE, Rules
from shoal.policies.space import Float
from shoal.trainables.batches import Shuffled
from shoal.trainables.classifier import ClassFacts, Classifier
from shoal.trainables.classifier_settings import ClassifierSettings
from shoal.trainables.embedder import Embedder
from shoal.trainables.embedder_settings import EmbedderSettings
from shoal.trainables.network import Network
from shoal.trainables.objectives.contrastive import Contrastive
from shoal.trainables.objectives.dice import Dice
from shoal.trainables.objectives.interface import NamedLoss
from shoal.trainables.objectives.shrunk_classes import ShrunkClasses
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack

MEMBERS, STEPS, INTERVAL, BATCH = 8, 300, 15, 64
RECIPE = Recipe(steps=STEPS, warmup=10, learning_rate=0.01, weight_decay=0.01)


@dataclass(frozen=True)
class ObjectiveTask:
    number: str  # the number of the objective that is searched
    domain: Float
    fixed: tuple[float, ...]  # values of the grid
    make: Callable[[int, dict[str, Any]], Network]  # seed of weights, hyperparameters -> a member


def classifier(
    objective: tuple[str, NamedLoss],
    rows: Callable[[int, int], dict[str, np.ndarray]],
    classes: int,
    score: Any,
    seed: int,
    chosen: dict[str, Any],
) -> Network:
    train = rows(0, 2000)
    features = train["x"].shape[1]
    facts = ClassFacts(
        inputs=("x",),
        columns=tuple(train),
        classes=classes,
        groups=0,
        rows=BATCH,
        prior=torch.full((classes,), 1 / classes),
        centre=torch.zeros(features),
        spread=torch.ones(features),
    )
    held_out = {"validation": {"all": rows(1, 2000)}, "test": {"all": rows(2, 4000)}}
    return Classifier(
        RECIPE,
        chosen,
        Shuffled(train, batch=BATCH, seed=seed),
        held_out,
        seed,
        settings=ClassifierSettings(width=32, layers=1, score=score),
        losses=weighted_sum([objective]),
        facts=facts,
    )


def rare(part: int, count: int) -> dict[str, np.ndarray]:
    """Return points of which one in a hundred is positive; the classes overlap."""
    rng = np.random.default_rng([10, part])
    label = (rng.random(count) < 0.01).astype(np.int64)
    x = rng.normal(size=(count, 20)) + 0.8 * label[:, None] * np.sign(np.arange(20) - 9.5)
    return {"x": x.astype(np.float32), "label": label}


def few_labels(part: int, count: int) -> dict[str, np.ndarray]:
    """Return points of six classes; of the training rows 2 % have a label."""
    rng = np.random.default_rng([20, part])
    label = rng.integers(6, size=count)
    centres = 1.1 * np.random.default_rng(21).normal(size=(6, 12))
    x = centres[label] + rng.normal(size=(count, 12))
    unknown = (rng.random(count) < 0.98) if part == 0 else np.zeros(count, bool)
    return {"x": x.astype(np.float32), "label": label, "unlabelled": unknown.astype(np.int64)}


def pairs(part: int, count: int) -> dict[str, np.ndarray]:
    """Return pairs that share a meaning; nine in ten are of one crowded cluster."""
    rng, fixed = np.random.default_rng([30, part]), np.random.default_rng(31)
    crowded = rng.random(count) < 0.9
    meaning = np.where(crowded[:, None], 3.0, 0.0) * fixed.normal(size=6) + rng.normal(size=(count, 6))
    mixing = fixed.normal(size=(2, 16, 16))
    found = [np.hstack([meaning, rng.normal(size=(count, 10))]) @ each for each in mixing]
    return {name: each.astype(np.float32) for name, each in zip(("query", "positive"), found, strict=True)}


def embedder(seed: int, chosen: dict[str, Any]) -> Network:
    held_out = {"validation": {"all": pairs(1, 300)}, "test": {"all": pairs(2, 600)}}
    return Embedder(
        RECIPE,
        chosen,
        Shuffled(pairs(0, 2000), batch=BATCH, seed=seed),
        held_out,
        seed,
        settings=EmbedderSettings(width=8, towers="two", score="mrr"),
        losses=weighted_sum([("contrastive", Contrastive(scaled=True))]),
        sizes={"query": 16, "positive": 16},
    )


DICE = partial(classifier, ("dice", Dice(form="batch", smooth=0.1)), rare, 2, "macro_f1")
SHRUNK = partial(classifier, ("shrunk_classes", ShrunkClasses()), few_labels, 6, "accuracy")
TASKS = {
    "dice": ObjectiveTask("alpha", Float(0.0, 1.0), (0.0, 0.1, 0.3, 0.6, 1.0), DICE),
    "temperature": ObjectiveTask("temperature", Float(0.02, 1.0, True), (0.02, 0.05, 0.15, 0.4, 1.0), embedder),
    "threshold": ObjectiveTask("threshold", Float(0.5, 0.98), (0.5, 0.7, 0.8, 0.9, 0.98), SHRUNK),
}


def searched(task: ObjectiveTask, rules: Rules, seed: int) -> tuple[float, float]:
    """Train a population; return the best member's test score and its number."""
    space = {"objective": {task.number: task.domain}}
    state = population.start(space, MEMBERS, seed)
    stack = Stack([task.make(1000 * seed + n, each.hyperparameters) for n, each in enumerate(state)])
    for step in range(INTERVAL, STEPS + 1, INTERVAL):
        stack.train(INTERVAL)
        reports = [Report(n, step, score) for n, (score, _) in enumerate(stack.evaluate())]
        if step == STEPS:
            break
        state, orders = population.decide(rules, space, state, reports, seed)
        parents = list(range(MEMBERS))
        for order in orders:
            parents[order.member] = order.donor
        stack.gather(parents, [each.hyperparameters for each in state])
    best = stack.members[max(reports, key=lambda report: report.score).member]
    return best.evaluate("test")[0], best.hyperparameters["objective"][task.number]


def fixed(task: ObjectiveTask, seed: int) -> list[float]:
    """Return the test score of a member with each value of the grid."""
    stack = Stack([task.make(1000 * seed, {"objective": {task.number: value}}) for value in task.fixed])
    stack.train(STEPS)
    return [score for score, _ in stack.evaluate("test")]


def measure(task: ObjectiveTask, seeds: int) -> dict[str, Any]:
    began = time.perf_counter()
    evolved = [searched(task, Rules(Truncation(0.25), Perturb()), seed) for seed in range(seeds)]
    drawn = [searched(task, LEFT_ALONE, seed) for seed in range(seeds)]
    grid = np.array([fixed(task, seed) for seed in range(seeds)])  # (seeds, values)
    return {
        "population": summary([score for score, _ in evolved]),
        "random": summary([score for score, _ in drawn]),
        "fixed": {f"{value:g}": summary(grid[:, place].tolist()) for place, value in enumerate(task.fixed)},
        "numbers at the end": [number for _, number in evolved],
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    arguments = parser.parse_args()
    found = {name: measure(TASKS[name], arguments.seeds) for name in arguments.tasks}
    for name, each in found.items():
        print(f"{name}: population {each['population']['mean']:.4f}, random {each['random']['mean']:.4f}")
        for value, score in each["fixed"].items():
            print(f"  {TASKS[name].number} {value}: {score['mean']:.4f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
