"""What a run will take, before anything starts: members, steps, tokens, memory, disk and workers."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from shoal.search.config.run import Run
from shoal.search.config.sections import Model
from shoal.search.config.stage_runs import stage_runs
from shoal.search.config.swarm import Swarm
from shoal.search.front.weights import FLOAT, MemberWeights, weights_of
from shoal.search.report.wording import count, duration

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
    shared_bytes: int = 0  # a frozen base or a teacher, once on each worker
    step_seconds: float | None = None  # one member took so many here, where it was measured
    interval_seconds: float | None = None  # first interval of a worker's members one after another, with scores

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
            each = (
                f"{count(self.weights)} trained weights, {in_bytes(self.member_bytes)} with slots and gradients"
            )
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
            shared = f", {in_bytes(self.shared_bytes)} of it frozen" if self.shared_bytes else ""
            said = f"{in_bytes(self.worker_bytes)} for its members{shared}{rows}, activations on top"
            told.append(f"  a worker      {said}")
        return told + self.costs()

    def costs(self) -> list[str]:
        """Return what a step took here, and what follows from it."""
        if self.step_seconds is None or self.interval_seconds is None:
            return []
        whole = self.reports * self.interval_seconds
        return [
            f"  a step        {self.step_seconds:.3g} s for one member, measured on this machine",
            f"  an interval   about {duration(self.interval_seconds)} for the members of a worker one after "
            f"another; a stack is quicker",
            f"  all           about {duration(whole)}, and some seconds for the start of Ray",
        ]


def in_bytes(amount: int) -> str:
    """Return bytes in words."""
    for unit, least in (("GB", 2**30), ("MB", MEGABYTE), ("kB", 2**10)):
        if amount >= least:
            return f"{amount / least:.3g} {unit}"
    return f"{amount} bytes"


def plans_of(run: Run, measured: bool = False) -> list[RunPlan]:
    """Return a plan for each population that the run trains; of kind mixture there are two.

    With `measured` a member of each is made here, trains two steps and is scored.
    """
    if run.kind == "stages":
        alone = [stage.model_copy(update={"begin": None}) for stage in stage_runs(run)]
        return [plan for stage in alone for plan in plans_of(stage, measured)]
    if run.kind != "mixture":
        place = run.population.members, run.training.steps, run.rounds
        return [plan_of(run, run.name, *place, run.model, measured)]
    swarm = run.swarm or Swarm()
    confirmed = CONTROLS_OF_MIXTURES * swarm.repeats
    return [
        plan_of(run, f"{run.name}-swarm", swarm.runs, swarm.steps, 5, run.small_model, measured),
        plan_of(run, f"{run.name}-confirm", confirmed, run.training.steps, 5, run.model, measured),
    ]


def plan_of(
    run: Run, name: str, members: int, steps: int, reports: int, model: Model, measured: bool
) -> RunPlan:
    workers = run.cluster.broods * run.workers_per_brood
    each = math.ceil(members * run.cluster.workers_per_member / workers)
    found = weights_of(run, model)
    tried = None
    if measured:
        from shoal.search.front.measured import measure  # which makes members

        tried = measure(run, model)
        if found is None and tried.weights is not None:
            found = MemberWeights(tried.weights)
    kept = None if found is None else found.trained * FLOAT * (1 + SLOTS[run.training.optimiser])
    training = None if found is None or kept is None else kept + found.trained * FLOAT + found.frozen_bytes
    shards = run.shares if run.cluster.span == "fsdp" else 1
    shared = 0 if found is None else found.shared_bytes
    interval = steps // min(reports, steps)
    return RunPlan(
        name=name,
        members=members,
        steps=steps,
        reports=min(reports, steps),
        tokens=members * steps * run.training.batch * run.data.sequence_length * run.reads_tokens,
        weights=None if found is None else found.trained,
        member_bytes=training,
        shared_bytes=shared,
        # the next one is written before the oldest goes
        checkpoint_bytes=None if kept is None else kept * members * (run.checkpoint.keep + 1),
        workers=workers,
        members_per_worker=each,
        worker_bytes=None if training is None or kept is None else each * (training + kept) // shards + shared,
        rows_megabytes=run.data.memory_megabytes if run.takes_rows else 0.0,
        cpus_per_worker=run.cluster.cpus_per_worker,
        gpus_per_worker=run.cluster.gpus_per_worker,
        step_seconds=tried and tried.step,
        interval_seconds=tried and each * (interval * tried.step + tried.score),
    )
