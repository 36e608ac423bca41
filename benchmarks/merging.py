"""Do averages of models, one a group, rank mixtures as models trained on them do? On real text.

From one start a small byte decoder is trained on each group alone, and on some mixtures. Then the averages of
the former score the mixtures of the latter, and thousands of others: one costs an evaluation in place of a
run. The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.parts.tasks import Memory
from shoal.cluster.storage import Store
from shoal.policies.arrays import Vector
from shoal.policies.laws.merged import ranked, trust
from shoal.policies.ranks import spearman
from shoal.search.config.sections import Data
from shoal.search.corpus.batches import MixedBatches
from shoal.search.corpus.build import prepare_corpus
from shoal.search.corpus.held_out import sampled_rows
from shoal.trainables.language import LanguageModel
from shoal.trainables.merging import merge
from shoal.trainables.settings import DecoderShape, Recipe

GROUPS = ("code", "docs", "law")
LENGTH, BATCH, HELD_OUT = 64, 16, 48  # tokens of a row, rows of a step, rows a group
START = 300  # steps of the shared start, at equal shares
TRAINED = 10  # mixtures that are truly trained
CONTINUED = (25, 100, 300)
RECIPE = Recipe(steps=START + max(CONTINUED), warmup=20, final_rate=1.0)
RATE = {"learning_rate": 0.003}
ROW = "{:>6}{:>15}{:>15}{:>9}{:>9}{:>12}{:>12}{:>12}"


class Bench:
    """Members that differ in their mixture alone: one start, one order of each group's rows."""

    def __init__(self, corpus: str, seed: int):
        settings = Data(
            corpus=corpus, groups=dict.fromkeys(GROUPS, "installed"), sequence_length=LENGTH, megabytes=2
        )
        manifest, store = prepare_corpus(settings, lambda line: None), Store(corpus)
        splits = {name: manifest.groups[name].splits for name in GROUPS}
        self.streams = {name: Memory(store, name, split["train"], seed) for name, split in splits.items()}
        self.seed = seed
        self.held_out = {
            of: {name: sampled_rows(store, manifest, name, of, HELD_OUT) for name in splits}
            for of in ("validation", "test")
        }
        self.shape = DecoderShape(manifest.vocabulary, LENGTH, layers=1, heads=2, width=32)
        self.start = self.member(np.full(3, 1 / 3))
        self.start.train(START)

    def member(self, mixture: Vector) -> LanguageModel:
        batches = MixedBatches(self.streams, mixture, BATCH)
        return LanguageModel(RECIPE, RATE, batches, self.held_out, self.seed, shape=self.shape)

    def continued(self, mixture: Vector) -> LanguageModel:
        """Return a member at the shared start that goes on with this mixture."""
        member = self.member(mixture)
        member.load(self.start.state(), RATE)
        member.batches.proportions = mixture  # type: ignore[attr-defined]
        return member


def losses(member: LanguageModel, split: str = "validation") -> Vector:
    _, found = member.evaluate(split)
    return np.array([found[name] for name in GROUPS])


def measured(bench: Bench, steps: int, scored: int) -> dict[str, float]:
    """Return how far merged and trained losses agree after so many steps from the start."""
    rng = np.random.default_rng([bench.seed, 1])
    mixtures = rng.dirichlet(np.ones(3), TRAINED)
    pool = [trained_on(bench, one, steps).module.state_dict() for one in np.eye(3)]
    trained = [trained_on(bench, mixture, steps) for mixture in mixtures]
    truly = np.array([losses(member) for member in trained])
    merged, _ = merged_losses(bench, pool, mixtures)
    average, _ = merged_losses(bench, pool, np.full((1, 3), 1 / 3))
    found = trust(merged.mean(axis=1), truly.mean(axis=1), losses(bench.start), average[0])
    many = rng.dirichlet(np.ones(3), scored)
    scores, seconds = merged_losses(bench, pool, many)
    # chosen by validation rows, judged by test rows: what was the best of ten would else be so by luck as well
    chosen, best, even = (
        float(losses(member, "test").mean())
        for member in (
            trained_on(bench, many[ranked(scores)[0]], steps),
            trained[ranked(truly)[0]],
            trained_on(bench, np.full(3, 1 / 3), steps),
        )
    )
    return {
        "correlation": found.correlation,
        "correlation_of_groups": float(
            np.mean([spearman(*pair) for pair in zip(merged.T, truly.T, strict=True)])
        ),
        "shift": found.shift,
        "barrier": float(found.barrier),
        "chosen_minus_stratified": chosen - even,
        "best_trained_minus_stratified": best - even,
        "seconds_a_mixture": seconds / scored,
    }


def trained_on(bench: Bench, mixture: Vector, steps: int) -> LanguageModel:
    member = bench.continued(mixture)
    member.train(steps)
    return member


def merged_losses(bench: Bench, pool: Sequence[dict[str, Any]], mixtures: Vector) -> tuple[Vector, float]:
    """Return the losses (mixtures, groups) of the pool's averages, and the seconds that took."""
    member, found, began = bench.continued(np.full(3, 1 / 3)), [], time.perf_counter()
    for mixture in mixtures:
        member.module.load_state_dict(merge(pool, mixture.tolist()))
        found.append(losses(member))
    return np.array(found), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merging", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="10 seeds and 2000 scored mixtures")
    arguments = parser.parse_args()
    seeds, scored = (10, 2000) if arguments.full else (arguments.seeds, 300)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    print(f"means over {seeds} seeds; {TRAINED} mixtures truly trained, {scored} scored by averages")
    names = ("steps", "correlation", "of each group", "shift", "barrier", "chosen", "best of 10", "ms a score")
    print(ROW.format(*names))
    with tempfile.TemporaryDirectory() as folder:
        benches = [Bench(f"{folder}/corpus", seed) for seed in range(seeds)]
        for steps in CONTINUED:
            found = [measured(bench, steps, scored) for bench in benches]
            row = {key: round(statistics.mean(one[key] for one in found), 4) for key in found[0]}
            results[str(steps)] = row | {"correlations": [round(one["correlation"], 3) for one in found]}
            *cells, seconds = row.values()
            print(ROW.format(steps, *(f"{cell:.3f}" for cell in cells), f"{1000 * seconds:.1f}"), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
