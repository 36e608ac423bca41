"""What a run will take, before anything starts: members, steps, tokens, memory, disk and workers."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shoal.policies.space import sample_space
from shoal.search.config.run import Run
from shoal.search.config.sections import Model
from shoal.search.config.swarm import Swarm
from shoal.search.members.classes import class_of
from shoal.search.records.directory import arrays_by_name
from shoal.search.report.write import count
from shoal.search.tokenizers import open_tokenizer

BYTES = 4  # size of a number in float32
SLOTS = {"adamw": 2, "sgd": 1}  # numbers that an optimiser keeps for each weight
CONTROLS_OF_MIXTURES = 6  # the proposal and what it is compared with: see search.runs.proposal
MEGABYTE = 2**20


@dataclass(frozen=True)
class RunPlan:
    """What one population takes. Bytes are of weights, slots and gradients; activations come on top.

    Where a member's weights are known only when it is made, they are None, and so is what follows from them.
    """

    name: str
    members: int
    steps: int  # each member trains so many
    reports: int  # each member makes so many; after each of them it may copy
    tokens: int  # that all members train on together; 0 without text
    weights: int | None  # numbers in a member
    member_bytes: int | None  # weights, slots and gradients of a member in training
    checkpoint_bytes: int | None  # all checkpoints that lie on the disk at once
    workers: int
    members_per_worker: int
    worker_bytes: int | None  # memory of its members in training and of their copies that are being written
    rows_megabytes: float  # the most rows that a worker holds
    cpus_per_worker: float | None  # None: 60 % of the CPUs are shared among the workers
    gpus_per_worker: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the plan in words, a line for each thing."""
        told = [
            f"{self.name}: {self.members} members, {self.steps} steps each, a report every "
            f"{self.steps // self.reports} steps"
        ]
        if self.tokens:
            told.append(f"  tokens        {count(self.tokens)} in all members together")
        if self.weights is None:
            told.append("  weights       known only when a member is made, with the rows that it reads")
        else:
            assert self.member_bytes is not None and self.checkpoint_bytes is not None
            each = f"{count(self.weights)} weights, {in_bytes(self.member_bytes)} with slots and gradients"
            told += [
                f"  a member      {each}",
                f"  checkpoints   {in_bytes(self.checkpoint_bytes)} on the disk",
            ]
        cpus = (
            "a share of 60 % of the CPUs" if self.cpus_per_worker is None else f"{self.cpus_per_worker:g} CPUs"
        )
        gpus = f" and {self.gpus_per_worker:g} GPUs" if self.gpus_per_worker else ""
        hosted = (
            f"up to {self.members_per_worker} {'member' if self.members_per_worker == 1 else 'members'} each"
        )
        told.append(f"  workers       {self.workers}, {hosted}, with {cpus}{gpus}")
        if self.worker_bytes is not None:
            rows = f" and up to {self.rows_megabytes:g} MB of rows" if self.tokens else ""
            told.append(
                f"  a worker      {in_bytes(self.worker_bytes)} for its members{rows}, activations on top"
            )
        return told


def in_bytes(amount: int) -> str:
    """Return bytes in words."""
    for unit, least in (("GB", 2**30), ("MB", MEGABYTE), ("kB", 2**10)):
        if amount >= least:
            return f"{amount / least:.3g} {unit}"
    return f"{amount} bytes"


def plans_of(run: Run) -> list[RunPlan]:
    """Return a plan for each population that the run trains; of kind mixture there are two."""
    if run.kind != "mixture":
        return [plan_of(run, run.name, run.population.members, run.training.steps, run.rounds, run.model)]
    swarm = run.swarm or Swarm()
    confirmed = CONTROLS_OF_MIXTURES * swarm.repeats
    return [
        plan_of(run, f"{run.name}-swarm", swarm.runs, swarm.steps, 5, swarm.model),
        plan_of(run, f"{run.name}-confirm", confirmed, run.training.steps, 5, run.model),
    ]


def plan_of(run: Run, name: str, members: int, steps: int, reports: int, model: Model) -> RunPlan:
    workers = run.cluster.broods * run.workers_per_brood
    each = math.ceil(members * run.cluster.workers_per_member / workers)
    weights = weights_of(run, model)
    kept = None if weights is None else weights * BYTES * (1 + SLOTS[run.training.optimiser])
    training = None if weights is None or kept is None else kept + weights * BYTES
    shards = run.shares if run.cluster.span == "fsdp" else 1
    return RunPlan(
        name=name,
        members=members,
        steps=steps,
        reports=min(reports, steps),
        tokens=members * steps * run.training.batch * run.data.sequence_length * run.reads_tokens,
        weights=weights,
        member_bytes=training,
        # the next one is written before the oldest goes
        checkpoint_bytes=None if kept is None else kept * members * (run.checkpoint.keep + 1),
        workers=workers,
        members_per_worker=each,
        worker_bytes=None if training is None or kept is None else each * (training + kept) // shards,
        rows_megabytes=run.data.memory_megabytes if run.takes_rows else 0.0,
        cpus_per_worker=run.cluster.cpus_per_worker,
        gpus_per_worker=run.cluster.gpus_per_worker,
    )


def weights_of(run: Run, model: Model) -> int | None:
    """Return how many numbers a member learns, as far as that shows without its rows."""
    if run.kind == "distill":
        return None
    if run.trainable == "toy":
        return 2
    if run.trainable == "decoder":
        return decoder_weights(run, model)
    if not run.own:
        return None
    if run.takes_rows:
        return None
    made = class_of(run)
    values = sample_space(run.space(), np.random.default_rng(0))
    try:
        member: Any = made(run.training.build(), values, run.seed, "cpu")
        found = member.state()["weights"]
    except Exception:  # the user's own code, which may need rows or a worker, says so when it trains
        return None
    return sum(weight.size for weight in arrays_by_name(found).values())


def decoder_weights(run: Run, model: Model) -> int:
    """Count the decoder's weights on torch's device `meta`, which allocates none."""
    import torch

    from shoal.trainables.decoder import Decoder
    from shoal.trainables.settings import DecoderShape

    shape = DecoderShape(
        vocabulary=open_tokenizer(run.data.tokenizer).vocabulary,
        sequence_length=run.data.sequence_length,
        **model.shape,
    )
    with torch.device("meta"):
        return sum(weight.numel() for weight in Decoder(shape).parameters())
