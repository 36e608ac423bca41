"""How fast a super-network trains and what its teacher costs, beside a plain loop over the same sub-networks.

The plain loop cuts each of the step's networks out as a copy, adds up their losses in one graph and carries the
gradients back into the shared weights. The teacher is asked by each member for itself, or once for all. Each
variant runs in a process of its own, whose peak memory is its own too. The last line is one JSON object.
"""

import argparse
import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch

from trainables.batches import Shuffled
from trainables.distill.elastic import LAYER, extract
from trainables.distill.encoder import Encoder
from trainables.distill.relations import relation_loss, relations
from trainables.distill.shared import SharedTeacher
from trainables.distill.spaces import Shape, Subnet, SubSpace, sandwich
from trainables.distill.supernet import DistillRecipe, Relation, SuperNetwork
from trainables.distill.teachers import Teacher

SPACE = SubSpace((3, 4), (5, 6), (160, 192), (2.0, 3.0), layers=6, head_width=32)
TEACHER = Shape(2000, 64, 6, 12, 384, 1536, 32)  # MiniLM-L6-H384 with fewer words
ROWS, LENGTH = 16, 64


def member(shared: SharedTeacher, origin: Encoder, chunk: int | None = None, seed: int = 0) -> SuperNetwork:
    rng = np.random.default_rng(0)
    rows = Shuffled(rng.integers(4, 2000, (64 * ROWS, LENGTH)), ROWS, 0)
    recipe = DistillRecipe(steps=100, warmup=1)
    return SuperNetwork(SPACE, origin, shared, Relation(chunk=chunk), recipe, {}, rows, {}, seed)


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


def measure(job: tuple[str, int]) -> dict[str, Any]:
    """Run one variant; called in a process of its own."""
    variant, steps = job
    torch.set_num_threads(1)
    torch.manual_seed(0)
    origin = Encoder(TEACHER)
    teacher = Teacher(Encoder(TEACHER))
    members = 3 if variant.startswith("teacher") else 1
    shared = SharedTeacher(teacher, megabytes=2000)
    each = [shared if variant == "teacher_shared" else SharedTeacher(teacher, 2000) for _ in range(members)]
    chunk = 4 if variant == "chunked" else None
    nets = [member(one, origin, chunk, seed) for seed, one in enumerate(each)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    for net in nets:
        for _ in range(steps):
            plain_step(net) if variant == "plain" else net.step()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "ms_per_step": round(1000 * seconds / (steps * members), 1),
        "peak_megabytes": round((peak - before) / 1024),  # above what is there before the first step
        "teacher_batches": sum({id(one): one.computed for one in each}.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distill_speed", description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--full", action="store_true", help="60 steps")
    arguments = parser.parse_args()
    steps = 60 if arguments.full else arguments.steps
    found = {}
    for variant in ("shared_weights", "chunked", "plain", "teacher_shared", "teacher_each"):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found[variant] = pool.submit(measure, (variant, steps)).result()
        print(variant, found[variant], flush=True)
    ratio = found["plain"]["ms_per_step"] / found["shared_weights"]["ms_per_step"]
    alone = found["teacher_each"]["ms_per_step"] / found["teacher_shared"]["ms_per_step"]
    print(
        json.dumps({"plain_over_shared": round(ratio, 3), "teacher_each_over_shared": round(alone, 3), **found})
    )


if __name__ == "__main__":
    main()
