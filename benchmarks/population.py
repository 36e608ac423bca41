"""How many member-steps a second: Shoal on Ray beside a bare PyTorch loop over the same members.

The bare loop trains the members one after another, with torch.optim, on the same cores and without Ray; it
draws the same batches and scores at the same intervals. Two populations: decoders whose step takes over 20 ms,
trained one by one, and small multi-layer perceptrons, trained as stacks; on a GPU the stacked ones are
decoders of a million weights. Shoal's clock runs from its first decision to its last, so that start-up is
left out, and told beside it. The last line is one JSON object.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.scale import Clock
from shoal.cluster.session import session
from shoal.search.config.run import Run
from shoal.search.driver.population import train_population
from shoal.search.records import directory
from shoal.trainables.arrays import to_tensors
from shoal.trainables.batches import Shuffled
from shoal.trainables.language import LanguageModel
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy
from shoal.trainables.settings import DecoderShape, Recipe, rate_at

CORES = len(os.sched_getaffinity(0))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = DecoderShape(vocabulary=257, sequence_length=128, layers=3, heads=4, width=96)  # the demo's
LARGER = DecoderShape(vocabulary=257, sequence_length=128, layers=5, heads=4, width=128)


@cache
def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(4096, 784)).astype(np.float32), rng.integers(0, 10, 4096)


@cache
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 257, (2048, 128)).astype(np.uint16)


class Perceptron(Network):
    """784-64-10, batches of 32."""

    def __init__(self, recipe: Recipe, hyperparameters: dict[str, Any], seed: int, device: str):
        held_out = {"validation": tuple(part[:128] for part in images())}
        super().__init__(recipe, hyperparameters, Shuffled(images(), 32), held_out, seed, device)

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))

    def loss(self, module: nn.Module, batch: Any, numbers: Any) -> torch.Tensor:
        inputs, labels = batch
        return cross_entropy(module(inputs), labels).mean()

    def score(self, module: nn.Module, rows: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        inputs, labels = rows
        return (module(inputs).argmax(dim=-1) == labels).double().mean(), {}


class Decoders(LanguageModel):
    """The demo's decoder on rows of chance, batches of 8."""

    def __init__(self, recipe: Recipe, hyperparameters: dict[str, Any], seed: int, device: str):
        held_out = {"validation": {"chance": tokens()[:16]}}
        super().__init__(recipe, hyperparameters, Shuffled(tokens(), 8), held_out, seed, device, shape=SHAPE)


class LargerDecoders(LanguageModel):
    """Decoders of about a million weights, batches of 8: what is stacked on a GPU."""

    def __init__(self, recipe: Recipe, hyperparameters: dict[str, Any], seed: int, device: str):
        held_out = {"validation": {"chance": tokens()[:16]}}
        super().__init__(recipe, hyperparameters, Shuffled(tokens(), 8), held_out, seed, device, shape=LARGER)


KINDS = {"Perceptron": Perceptron, "Decoders": Decoders, "LargerDecoders": LargerDecoders}


def population(kind: str, members: int, steps: int, interval: int, stack: bool, folder: str) -> Run:
    return Run.model_validate(
        {
            "name": "population",
            "directory": f"{folder}/run",
            "trainable": f"benchmarks.population:{kind}",
            "training": {"steps": steps, "warmup": 5},
            "hyperparameters": {"learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-3, "log": True}},
            "population": {"members": members, "interval": interval},
            # one worker a core, each with one thread; on a GPU one worker has all
            "cluster": {"broods": 1, "stack": stack, "threads_per_worker": 1}
            | ({"workers_per_brood": CORES} if DEVICE == "cpu" else {"gpus_per_worker": 1}),
        }
    )


def bare(kind: str, members: int, steps: int, interval: int, threads: int) -> float:
    """Return member-steps a second of the plain loop."""
    torch.set_num_threads(threads)
    rates = np.geomspace(1e-4, 1e-3, members)
    recipe = Recipe(steps=steps, warmup=5)
    made = [KINDS[kind](recipe, {"learning_rate": float(rate)}, 0, DEVICE) for rate in rates]
    optimisers = [torch.optim.AdamW(each.module.parameters(), lr=1e-3) for each in made]
    train_for(made, optimisers, 0, interval)  # not timed: the first steps allocate
    began = time.perf_counter()
    for start in range(interval, steps, interval):
        train_for(made, optimisers, start, interval)
    return members * (steps - interval) / (time.perf_counter() - began)


def train_for(made: list[Network], optimisers: list[torch.optim.Optimizer], start: int, interval: int) -> None:
    for member, optimiser in zip(made, optimisers, strict=True):
        member.module.train()
        for step in range(start, start + interval):
            for group in optimiser.param_groups:
                group["lr"] = rate_at(step, member.recipe)
            loss, _ = member.objective(member.module, batch_of(member), member.numbers)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(member.module.parameters(), 1.0)
            optimiser.step()
        member.evaluate()


def batch_of(member: Network) -> Any:
    return to_tensors(member.batches.next(), torch.device(DEVICE))


def on_ray(kind: str, members: int, steps: int, interval: int, stack: bool) -> tuple[float, float]:
    """Return member-steps a second from the first decision to the last, and the seconds before it."""
    with tempfile.TemporaryDirectory() as folder, session():
        run = population(kind, members, steps, interval, stack, folder)
        directory.create(run)
        clock, began = Clock(), time.perf_counter()
        train_population(run, clock)
    return members * (steps - interval) / (clock.times[-1] - clock.times[0]), clock.times[0] - began


def compare(
    kind: str, members: int, steps: int, interval: int, stack: bool, repeats: int, seconds: float
) -> dict[str, Any]:
    """Measure both sides in turn, so that a slow minute of the machine hits both; return ratio and rates.

    Another repeat begins only where one as long as the longest so far ends within so many seconds.
    """
    pairs: list[tuple[float, float, float]] = []
    began, longest = time.perf_counter(), 0.0
    while not pairs or (len(pairs) < repeats and time.perf_counter() - began + longest < seconds):
        each = time.perf_counter()
        ours, start = on_ray(kind, members, steps, interval, stack)
        # small steps are quicker with one thread: the loop is given what suits it
        theirs = max(bare(kind, members, steps, interval, threads) for threads in {1, CORES})
        pairs.append((ours, theirs, start))
        longest = max(longest, time.perf_counter() - each)
    if len(pairs) < repeats:
        print(f"only {len(pairs)} of {repeats} repeats: each takes up to {longest:.0f} s here", flush=True)
    ratios = sorted(ours / theirs for ours, theirs, _ in pairs)
    return {
        "ratio": round(statistics.median(ratios), 3),
        "low": round(ratios[0], 3),
        "high": round(ratios[-1], 3),
        "shoal_per_second": round(statistics.median(pair[0] for pair in pairs), 1),
        "bare_per_second": round(statistics.median(pair[1] for pair in pairs), 1),
        "start_seconds": round(statistics.median(pair[2] for pair in pairs), 1),
        "repeats": len(pairs),
        "members": members,
        "steps": steps,
        "interval": interval,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.population", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="five repeats of runs twice as long")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="for all; fewer repeats if they take longer"
    )
    parser.add_argument("--only", choices=["unstacked", "stacked"], help="one of the two populations")
    arguments = parser.parse_args()
    repeats, longer = (5, 2) if arguments.full else (arguments.repeats, 1)
    populations = {
        "unstacked": ("Decoders", 8, 100 * longer, 25, False),
        "stacked": ("Perceptron", 32, 1000 * longer, 100, True),
    }
    if DEVICE == "cuda":
        populations["stacked"] = ("LargerDecoders", 32, 200 * longer, 50, True)
    result: dict[str, Any] = {
        "members": {name: settings[1] for name, settings in populations.items()},
        "device": f"{DEVICE}, {CORES} cores" if DEVICE == "cpu" else torch.cuda.get_device_name(),
    }
    chosen = [name for name in populations if arguments.only in (None, name)]
    ends = time.perf_counter() + 60 * (arguments.minutes if not arguments.full else math.inf)
    for place, name in enumerate(chosen):
        left = (ends - time.perf_counter()) / (len(chosen) - place)
        found = compare(*populations[name], repeats=repeats, seconds=left)
        print(f"{name}: {found}", flush=True)
        result |= {f"{name}_over_bare": found["ratio"], name: found}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
