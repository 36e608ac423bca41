"""How fast a super-network trains and what its teacher costs, beside a plain loop and beside whittle.

The plain loop cuts each of the step's networks out as a copy, adds up their losses in one graph and carries the
gradients back into the shared weights. The teacher is asked by each member for itself, or once for all. Whittle
trains decoders on labels, so a decoder of the same shape is trained so here too. Each variant runs in a process
of its own, on one thread, whose peak memory is its own too. Ratios are of the core's time, which other programs
disturb less than the clock's. The last line is one JSON object.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from shoal.trainables.batches import Shuffled
from shoal.trainables.distill.decoder import ElasticDecoder
from shoal.trainables.distill.elastic import LAYER, Transformer, extract
from shoal.trainables.distill.encoder import ElasticEncoder
from shoal.trainables.distill.relations import relation_loss, relations
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.spaces import ElasticShape, Subnet, SubSpace, sandwich
from shoal.trainables.distill.supernet import DistillRecipe, Relation, SuperNetwork
from shoal.trainables.distill.teachers import Teacher

SPACE = SubSpace((3, 4), (5, 6), (160, 192), (2.0, 3.0), layers=6, head_width=32)
TEACHER = ElasticShape(2000, 64, 6, 12, 384, 1536, 32)  # MiniLM-L6-H384 with fewer words
ROWS, LENGTH = 16, 64
# whittle's super-network is its largest network, so ours has no more layers than that here
DECODERS = SubSpace((3, 4), (5, 6), (160, 192), (2.0, 3.0), layers=4, head_width=32)
DECODER = ElasticShape(2000, LENGTH, 4, 6, 192, 576, 32, "decoder", 1e-5, activation="silu", tied=False)
MEMBERS = 3  # that share a teacher


def member(
    shared: SharedTeacher, origin: Transformer, chunk: int | None = None, seed: int = 0, space: SubSpace = SPACE
) -> SuperNetwork:
    rng = np.random.default_rng(0)
    rows = Shuffled(rng.integers(4, 2000, (64 * ROWS, LENGTH)), ROWS, 0)
    recipe = DistillRecipe(steps=100, warmup=1)
    return SuperNetwork(space, origin, shared, Relation(chunk=chunk), recipe, {}, rows, {}, seed)


def labels_step(own: SuperNetwork) -> None:
    """Train the step's sub-networks on the next token, as whittle's sandwich does."""
    own.set_rates()
    tokens = torch.from_numpy(own.batches.next())
    own.optimiser.zero_grad(set_to_none=True)
    network = own.transformer
    assert isinstance(network, ElasticDecoder)
    for subnet in sandwich(DECODERS, np.random.default_rng([0, own.trained])):
        logits = network.logits(network(tokens, None, subnet).hidden)[:, :-1]
        functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    torch.nn.utils.clip_grad_norm_(own.module.parameters(), own.recipe.clip)
    own.optimiser.step()
    own.trained += 1


def plain_step(own: SuperNetwork) -> None:
    """Train the step's sub-networks as copies, in one graph."""
    own.set_rates()
    tokens = torch.from_numpy(own.batches.next())
    target = own.teacher.see(tokens).relations
    own.optimiser.zero_grad(set_to_none=True)
    subnets = sandwich(SPACE, np.random.default_rng([0, own.trained]))
    copies = [extract(own.transformer, subnet) for subnet in subnets]
    sum(relation_loss(relations(copy(tokens)), target, 16) for copy in copies).backward()  # type: ignore[union-attr]
    for copy, subnet in zip(copies, subnets, strict=True):
        carry_back(own.transformer, copy, subnet)
    torch.nn.utils.clip_grad_norm_(own.module.parameters(), own.recipe.clip)
    own.optimiser.step()
    own.trained += 1


def carry_back(whole: torch.nn.Module, copy: torch.nn.Module, subnet: Subnet) -> None:
    """Add a copy's gradients to those of the weights that it was cut from."""
    weights = dict(whole.named_parameters())
    for name, weight in copy.named_parameters():
        if weight.grad is None:
            continue
        target = weights[LAYER.sub(lambda found: str(subnet.layers[int(found.group())]), name)]
        if target.grad is None:
            target.grad = torch.zeros_like(target)
        target.grad[tuple(slice(size) for size in weight.shape)] += weight.grad


def build(variant: str) -> list[SuperNetwork]:
    """Return the members that a variant trains."""
    torch.manual_seed(0)
    if variant.startswith("decoder"):
        return [
            member(
                SharedTeacher(Teacher(ElasticDecoder(DECODER)), 2000), ElasticDecoder(DECODER), space=DECODERS
            )
        ]
    origin, teacher = ElasticEncoder(TEACHER), Teacher(ElasticEncoder(TEACHER))
    count = MEMBERS if variant.startswith("teacher") else 1
    shared = SharedTeacher(teacher, 2000)
    each = [SharedTeacher(teacher, 2000) if variant == "teacher_each" else shared for _ in range(count)]
    return [member(one, origin, 4 if variant == "chunked" else None, seed) for seed, one in enumerate(each)]


STEPS = {"plain": plain_step, "decoder_labels": labels_step}


def measure(job: tuple[str, int]) -> dict[str, Any]:
    """Run one variant; called in a process of its own."""
    variant, steps = job
    torch.set_num_threads(1)
    nets, step = build(variant), STEPS.get(variant, SuperNetwork.step)
    if variant in ALONE:
        for net in nets:  # what the teacher shows of all batches is there before the time runs
            for _ in range(steps + 1):
                net.teacher.see(torch.from_numpy(net.batches.next()))
            net.batches.cursor = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(nets[0])  # the first step also allocates
    began, worked = time.perf_counter(), time.process_time()
    for net in nets:
        for _ in range(steps):
            step(net)
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "ms_per_step": round(1000 * seconds / (steps * len(nets)), 1),
        "core_ms_per_step": round(1000 * worked / (steps * len(nets)), 1),
        "peak_megabytes": round((peak - before) / 1024),  # above what is there before the first step
        "teacher_batches": sum({id(net.teacher): net.teacher.computed for net in nets}.values()),
    }


ALONE = ("shared_weights", "chunked", "plain", "decoder_relations")  # timed without their teacher
VARIANTS = (*ALONE, "decoder_labels", "teacher_shared", "teacher_each")


def whittle(python: str, steps: int) -> dict[str, Any]:
    """Train whittle's decoder by its own sandwich, in the Python that has it."""
    axes = {name: getattr(DECODERS, name) for name in ("depths", "heads", "widths", "ratios")}
    sizes = {**DECODER.plain(), "length": LENGTH, "rows": ROWS, "steps": steps, "space": axes}
    program = [python, str(Path(__file__).with_name("whittle_sandwich.py")), json.dumps(sizes)]
    said = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distill_speed", description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--whittle", help="a Python that has whittle, which cannot stand beside our pins")
    parser.add_argument("--repeats", type=int, default=3, help="of each variant, in turn; medians are told")
    parser.add_argument("--full", action="store_true", help="60 steps")
    arguments = parser.parse_args()
    steps = 60 if arguments.full else arguments.steps
    runs: dict[str, list[dict[str, Any]]] = {}
    for _ in range(arguments.repeats):
        for variant in VARIANTS:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                runs.setdefault(variant, []).append(pool.submit(measure, (variant, steps)).result())
            print(variant, runs[variant][-1], flush=True)
        if arguments.whittle:
            runs.setdefault("whittle", []).append(whittle(arguments.whittle, steps))
            print("whittle", runs["whittle"][-1], flush=True)
    found = {
        name: sorted(each, key=lambda run: run["core_ms_per_step"])[len(each) // 2]
        for name, each in runs.items()
    }
    ratios = {
        "plain_over_shared": ratio(found, "plain", "shared_weights"),
        "teacher_each_over_shared": ratio(found, "teacher_each", "teacher_shared"),
    }
    if arguments.whittle:
        ratios["whittle_over_ours"] = ratio(found, "whittle", "decoder_labels")
    print(json.dumps({**ratios, **found}))


def ratio(found: dict[str, dict[str, Any]], above: str, below: str) -> float:
    return round(found[above]["core_ms_per_step"] / found[below]["core_ms_per_step"], 3)


if __name__ == "__main__":
    main()
