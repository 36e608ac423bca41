"""What fine-tuning a pretrained model costs and reaches: SmolLM2-135M, beside loops of transformers and peft.

Members with an adapter share one frozen base in a process and train stacked. Memory is measured in processes of
their own, speeds side by side in turns, in one process. The population is Shoal's own decisions without Ray,
beside random search and Ray Tune's ASHA at equal member-steps, on code, documentation and instructions; seeds
are paired. The last line is one JSON object; against each key stands what it aims at.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.parts import smollm
from benchmarks.parts.adapter_memory import full_memory, memory
from benchmarks.parts.adapter_worker import (
    ADAPTER,
    LENGTH,
    MEMBERS,
    ROWS,
    chance,
    member,
    peft_model,
    plain_step,
)
from benchmarks.parts.asha import train_by_asha
from benchmarks.parts.tasks import Task
from benchmarks.quality import better, summary, train
from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.policies.exploit import Truncation
from shoal.policies.explore import Perturb
from shoal.policies.rules import LEFT_ALONE, Rules
from shoal.policies.space import Float, Int, Space
from shoal.trainables import heap
from shoal.trainables.batches import Shuffled
from shoal.trainables.handover import handed_out
from shoal.trainables.pretrained.causal import CausalModel
from shoal.trainables.pretrained.settings import Pretrained
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack

AIMS = {
    "eight_over_one_memory": "<= 1.3",
    "eight_peft_processes_over_eight": ">= 5",
    "stacked_over_loop": ">= 1.0 on a CPU, 4 on a GPU",
    "bytes_per_weight": "<= 24",
    "shoal_over_bare": ">= 0.95",
    "exploit_ms": "<= 20",
    "checkpoint_bytes_over_adapter": "<= 3.3",
}


def in_turns(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each way; all are called once before, not timed, and then in turns."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in seconds.items()}


def peft_loop(folder: str, device: str) -> Callable[[], None]:
    """Return a function that does a step of each member, one by one, on one base with as many adapters."""
    model = peft_model(folder).to(device).train()
    names = ["default", *(f"member{place}" for place in range(1, MEMBERS))]
    for name in names[1:]:
        model.add_adapter(name, model.peft_config["default"])
    optimisers = []
    for name in names:
        model.set_adapter(name)
        trained = [each for each in model.parameters() if each.requires_grad]
        optimisers.append(torch.optim.AdamW(trained, lr=1e-4))
    batches = [Shuffled(chance(8 * ROWS, LENGTH, place), ROWS, place) for place in range(MEMBERS)]

    def step() -> None:
        for name, optimiser, rows in zip(names, optimisers, batches, strict=True):
            model.set_adapter(name)
            plain_step(model, optimiser, torch.from_numpy(rows.next().astype(np.int64)).to(device))

    return step


def speed(folder: str, repeats: int, device: str) -> dict[str, Any]:
    """Return member-steps a second, stacked and in peft's loop, and what an exploit within the stack takes."""
    stack = Stack([member(folder, seed, ROWS, LENGTH, device=device) for seed in range(MEMBERS)])
    loop = peft_loop(folder, device)

    found = in_turns({"stacked": lambda: stack.train(1), "loop": loop}, repeats)
    parents = [0, 1, *range(2, MEMBERS - 2), 0, 1]  # the last two become clones

    def exploit() -> None:
        stack.gather(parents, [each.hyperparameters for each in stack.members])
        stack.weights.sum().item()  # a GPU is waited for

    return {
        "stacked_over_loop": found["loop"] / found["stacked"],
        "stacked_member_steps_per_second": MEMBERS / found["stacked"],
        "loop_member_steps_per_second": MEMBERS / found["loop"],
        "exploit_ms": 1000 * in_turns({"exploit": exploit}, 5)["exploit"] / 2,
        "device": device,
    }


def trimming(folder: str, repeats: int) -> dict[str, float]:
    """Return what a checkpointed step takes that gives holes of the heap back, over one that keeps them."""

    def stack() -> Stack:
        return Stack([member(folder, seed, ROWS, LENGTH, checkpointed=True) for seed in range(MEMBERS)])

    trimmed = stack()
    with patch.object(heap, "malloc_trim", lambda: None):
        kept = stack()
    found = in_turns({"trimmed": lambda: trimmed.train(1), "kept": lambda: kept.train(1)}, repeats)
    return {"trimmed_over_kept": found["trimmed"] / found["kept"]}


def bare_step(folder: str, rows: int) -> Callable[[], None]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batches = Shuffled(chance(8 * rows, LENGTH), rows)
    return lambda: plain_step(model, optimiser, torch.from_numpy(batches.next().astype(np.int64)))  # type: ignore[return-value]


def full_speed(folder: str, repeats: int) -> dict[str, Any]:
    one = member(folder, 0, ROWS, LENGTH, adapter=None)
    bare = bare_step(folder, ROWS)

    found = in_turns({"shoal": lambda: one.train(1), "bare": bare}, repeats)
    return {"shoal_over_bare": found["bare"] / found["shoal"], "full_step_seconds": found["shoal"]}


def sizes(folder: str) -> dict[str, Any]:
    """Return the bytes of an adapter's checkpoint over those of its weights."""
    one = member(folder, 0, 1, 32)
    one.train(1)
    with tempfile.TemporaryDirectory() as place:
        checkpoints.save_member(Store(place), 1, 0, handed_out(one.state))
        size = sum(file.stat().st_size for file in Path(place).rglob("*.safetensors"))
    adapter = sum(weight.nbytes for weight in one.weights().values())
    return {"checkpoint_bytes_over_adapter": size / adapter, "adapter_mib": adapter / 2**20}


def half_precision(folder: str, steps: int) -> dict[str, Any]:
    """Return the loss curves of one adapter in float32 and in bfloat16, and the times."""
    found: dict[str, Any] = {}
    for precision in ("float32", "bfloat16"):
        rows = smollm.together(data(folder)["train"])
        one = adapter_member(folder, rows, {}, {"learning_rate": 1e-3}, 0, steps, precision)
        one.train(1)
        began = time.perf_counter()
        found[precision] = [round(one.train(1), 4) for _ in range(steps)]
        found[f"{precision}_seconds_a_step"] = round((time.perf_counter() - began) / steps, 3)
    gaps = np.abs(np.subtract(found["float32"], found["bfloat16"]))
    return {"bf16": found | {"largest_difference": round(float(gaps.max()), 4)}}


ROW_LENGTH = 32  # tokens, of the search


@cache
def data(folder: str) -> dict[str, dict[str, smollm.Rows]]:
    return smollm.groups(folder, ROW_LENGTH)


def adapter_member(
    folder: str,
    rows: smollm.Rows,
    held_out: dict[str, Any],
    hyperparameters: dict[str, Any],
    seed: int,
    steps: int,
    precision: str = "float32",
) -> CausalModel:
    recipe = Recipe(steps=steps, warmup=2, final_rate=1.0, weight_decay=0.0, precision=precision)
    batches = Shuffled(rows, 2, seed)
    return CausalModel(recipe, hyperparameters, batches, held_out, seed, pretrained=Pretrained(folder, ADAPTER))


SPACE: Space = {
    "learning_rate": Float(1e-5, 1e-2, log=True),
    "dropout": Float(0.0, 0.3),
    "rank": Int(1, ADAPTER.rank, log=True),
}
SPLITS = ("validation", "test")
METHODS: dict[str, Rules | None] = {
    "random search": LEFT_ALONE,
    "population": Rules(Truncation(0.25), Perturb(0.25, (0.8, 1.25))),
    "asha": None,
}


def best_losses(folder: str, members: int, steps: int, interval: int, asked: tuple[str, int]) -> list[float]:
    """Return the loss of a method's best adapter with one seed, on the validation and the test rows."""
    torch.set_num_threads(1)
    parts = data(folder)
    rows, held_out = smollm.together(parts["train"]), {split: parts[split] for split in SPLITS}
    method, seed = asked

    def make(hyperparameters: dict[str, Any], seed: int) -> CausalModel:
        return adapter_member(folder, rows, held_out, hyperparameters, seed, steps)

    task = Task("adapters", make, SPACE, members, steps, interval, "loss", higher=False)
    rules = METHODS[method]
    best = train_by_asha(task, seed) if rules is None else train(task, rules, seed)
    return [-best.evaluate(split)[0] for split in SPLITS]


def search(folder: str, seeds: range, members: int, steps: int, interval: int) -> dict[str, Any]:
    """Return each method's loss of its best adapter on the validation and test rows, seed by seed.

    Each method and seed has a core of its own, as many at a time as there are cores.
    """
    asked = [(method, seed) for seed in seeds for method in METHODS]
    run = partial(best_losses, folder, members, steps, interval)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        losses = dict(zip(asked, pool.map(run, asked), strict=True))
    found: dict[str, dict[str, list[float]]] = {
        method: {split: [losses[method, seed][place] for seed in seeds] for place, split in enumerate(SPLITS)}
        for method in METHODS
    }
    told: dict[str, Any] = {
        name: {split: summary(each) for split, each in parts.items()} for name, parts in found.items()
    }
    for other in ("random search", "asha"):
        name = f"population_over_{other.partition(' ')[0]}"
        told[name] = better(found["population"]["validation"], found[other]["validation"], higher=False)
    return told | {"members": members, "steps": steps, "interval": interval}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapters", description=__doc__)
    parser.add_argument("--folder", default="runs/models/smollm2-135m", help="where the model is, or is put")
    parser.add_argument("--repeats", type=int, default=5, help="of each timing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--members", type=int, default=8, help="of the search")
    parser.add_argument("--steps", type=int, default=20, help="of each member of the search")
    parser.add_argument("--interval", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="8 seeds and 60 steps: hours on a CPU")
    parser.add_argument("--only", action="append", choices=[*PARTS], help="may be given again")
    parser.add_argument("--device", default="cpu", help="of the comparison with peft's loop: cpu or cuda")
    arguments = parser.parse_args()
    if arguments.full:
        arguments.seeds, arguments.steps, arguments.interval = 8, 60, 10
    return arguments


PARTS: dict[str, Callable[[str, argparse.Namespace], dict[str, Any]]] = {
    "memory": lambda folder, given: memory(folder),
    "full_memory": lambda folder, given: full_memory(folder),
    "sizes": lambda folder, given: sizes(folder),
    "speed": lambda folder, given: speed(folder, given.repeats, given.device),
    "trimming": lambda folder, given: trimming(folder, given.repeats),
    "full_speed": lambda folder, given: full_speed(folder, given.repeats),
    "bf16": lambda folder, given: half_precision(folder, 2 * given.repeats),
    "search": lambda folder, given: search(
        folder, range(given.seeds), given.members, given.steps, given.interval
    ),
}


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def main() -> None:
    arguments = parse()
    folder = smollm.folder(arguments.folder)
    results: dict[str, Any] = {}
    for name in arguments.only or PARTS:
        began = time.perf_counter()
        found = rounded(PARTS[name](folder, arguments))
        results |= found
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        for key, value in found.items():
            print(f"  {key:<36}{value}{'  aim ' + AIMS[key] if key in AIMS else ''}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
