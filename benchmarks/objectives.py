"""Does a population find good numbers of an objective? Beside five fixed values, and beside random search.

One number of an objective is searched, all else is equal. Populations, random searches and fixed values train
as many steps a member; the best member by validation rows is scored on test rows. No Ray: members train in one
stack. The settings were chosen on seed 77.
The last line printed is one JSON object with a key for each task.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from benchmarks.parts.objective_rows import digits, documentation, reviews
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
from shoal.trainables.objectives.dpo import DPO
from shoal.trainables.objectives.guided import Guided
from shoal.trainables.objectives.interface import NamedLoss
from shoal.trainables.objectives.shrunk_classes import ShrunkClasses
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.pretrained.settings import LowRank, Pretrained
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack

MEMBERS, STEPS, INTERVAL, BATCH = 8, 300, 15, 64
NARROW = 8  # numbers of an embedding of drawn pairs
VOCABULARY = 32  # tokens of the answers
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


def repeated(part: int, count: int) -> dict[str, np.ndarray]:
    """Return pairs of which many mean nearly the same, so that a batch's negatives are often positives.

    Held-out pairs all mean something else. A guide sees the meanings with some noise.
    """
    rng, fixed = np.random.default_rng([40, part]), np.random.default_rng(41)
    known = fixed.normal(size=(30, 6))  # so many meanings are asked for; batches have more rows
    meaning = known[rng.integers(30, size=count)] + 0.3 * rng.normal(size=(count, 6))
    meaning = meaning if part == 0 else rng.normal(size=(count, 6))
    mixing = fixed.normal(size=(2, 16, 16))
    found = [np.hstack([meaning, rng.normal(size=(count, 10))]) @ each for each in mixing]
    found += [meaning + 0.3 * rng.normal(size=(count, 6)) for _ in range(2)]
    names = ("query", "positive", "guide_query", "guide_positive")
    return {name: each.astype(np.float32) for name, each in zip(names, found, strict=True)}


def embedder(
    objective: tuple[str, NamedLoss],
    rows: Callable[[int, int], dict[str, np.ndarray]],
    width: int,
    seed: int,
    chosen: dict[str, Any],
) -> Network:
    train = rows(0, 2000)
    held_out = {"validation": {"all": rows(1, 300)}, "test": {"all": rows(2, 600)}}
    return Embedder(
        RECIPE,
        chosen,
        Shuffled(train, batch=BATCH, seed=seed),
        held_out,
        seed,
        settings=EmbedderSettings(width=width, towers="two" if width == NARROW else "one", score="mrr"),
        losses=weighted_sum([objective]),
        sizes={name: train[name].shape[1] for name in ("query", "positive")},
    )


def answers(part: int, count: int) -> dict[str, np.ndarray]:
    """Return pairs of answers of six tokens; the better one has more even ones. A third is the wrong way round.

    Held-out pairs are all the right way round.
    """
    rng = np.random.default_rng([50, part])
    prompt = rng.integers(VOCABULARY, size=(count, 4))
    better, worse = rng.integers(VOCABULARY // 2, size=(2, count, 6)) * 2
    better += rng.random((count, 6)) < 0.2
    worse += rng.random((count, 6)) < 0.8
    wrong = (rng.random(count) < 1 / 3) & (part == 0)
    chosen, rejected = np.where(wrong[:, None], worse, better), np.where(wrong[:, None], better, worse)
    mask = np.tile(np.array([0] * 4 + [1] * 6, np.uint8), (count, 1))
    rows = {"chosen": np.hstack([prompt, chosen]), "rejected": np.hstack([prompt, rejected])}
    return {name: each.astype(np.uint16) for name, each in rows.items()} | {
        "chosen_mask": mask,
        "rejected_mask": mask,
    }


@cache
def small_llama() -> str:
    """Return a folder with a Llama of two layers and drawn weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
    )
    folder = tempfile.mkdtemp(prefix="small-llama-")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def preferring(seed: int, chosen: dict[str, Any]) -> Network:
    from shoal.trainables.pretrained.preference import PreferenceModel

    adapter = LowRank(rank=4, alpha=8.0, targets=("q_proj", "v_proj", "up_proj", "down_proj"))
    return PreferenceModel(
        replace(RECIPE, weight_decay=0.0),
        chosen,
        Shuffled(answers(0, 600), batch=8, seed=seed),
        {"validation": {"all": answers(1, 150)}, "test": {"all": answers(2, 600)}},
        seed,
        pretrained=Pretrained(small_llama(), adapter),
        losses=weighted_sum([("dpo", DPO())]),
    )


DICE = partial(classifier, ("dice", Dice(form="batch", smooth=0.1)), rare, 2, "macro_f1")
CROWDED = partial(embedder, ("contrastive", Contrastive(scaled=True)), pairs, NARROW)
GUIDED = partial(embedder, ("guided", Guided(temperature=0.1)), repeated, NARROW)
DOCUMENTED = partial(embedder, ("contrastive", Contrastive(scaled=True)), documentation, 64)
DOCUMENTED_GUIDED = partial(embedder, ("guided", Guided(temperature=0.1)), documentation, 64)
DIGITS = partial(classifier, ("shrunk_classes", ShrunkClasses()), digits, 10, "accuracy")
SHRUNK = partial(classifier, ("shrunk_classes", ShrunkClasses()), few_labels, 6, "accuracy")
ALPHA, ALPHAS = Float(0.0, 1.0), (0.0, 0.1, 0.3, 0.6, 1.0)
TEMPERATURE, TEMPERATURES = Float(0.02, 1.0, True), (0.02, 0.05, 0.15, 0.4, 1.0)
THRESHOLD, THRESHOLDS = Float(0.5, 0.98), (0.5, 0.7, 0.8, 0.9, 0.98)
MARGIN, MARGINS = Float(-1.0, 0.3), (-3.0, -0.3, 0.0, 0.1, 0.3)  # the first fixed value leaves nothing out
TASKS = {
    "dice": ObjectiveTask("alpha", ALPHA, ALPHAS, DICE),
    "temperature": ObjectiveTask("temperature", TEMPERATURE, TEMPERATURES, CROWDED),
    "threshold": ObjectiveTask("threshold", THRESHOLD, THRESHOLDS, SHRUNK),
    "guided": ObjectiveTask("margin", MARGIN, MARGINS, GUIDED),
    "beta": ObjectiveTask("beta", Float(0.01, 10.0, True), (0.01, 0.1, 0.5, 2.0, 10.0), preferring),
    "temperature of documentation": ObjectiveTask("temperature", TEMPERATURE, TEMPERATURES, DOCUMENTED),
    "guided documentation": ObjectiveTask("margin", MARGIN, MARGINS, DOCUMENTED_GUIDED),
    "threshold of digits": ObjectiveTask("threshold", THRESHOLD, THRESHOLDS, DIGITS),
}


def of_reviews(folder: str) -> ObjectiveTask:
    """Return dice's alpha on the sentences of a folder of SST-2."""
    objective = ("dice", Dice(form="batch", smooth=0.1))
    make = partial(classifier, objective, partial(reviews, folder), 2, "macro_f1")
    return ObjectiveTask("alpha", ALPHA, ALPHAS, make)


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
    parser.add_argument("--sst2", help="a folder with train.tsv and test.tsv: text, tab, 0 or 1")
    arguments = parser.parse_args()
    asked = {name: TASKS[name] for name in arguments.tasks}
    if arguments.sst2:
        asked["dice of reviews"] = of_reviews(arguments.sst2)
    found = {name: measure(task, arguments.seeds) for name, task in asked.items()}
    for name, each in found.items():
        print(f"{name}: population {each['population']['mean']:.4f}, random {each['random']['mean']:.4f}")
        for value, score in each["fixed"].items():
            print(f"  {asked[name].number} {value}: {score['mean']:.4f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
