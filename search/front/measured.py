"""What a member's step takes on this machine: one is made with the rows that it will read, and tried."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

from rich.console import Console

from shoal.search.config.run import Run
from shoal.search.config.sections import Model
from shoal.search.errors import InputError
from shoal.search.members.build import build_members
from shoal.search.members.unmade import Unmade
from shoal.search.records.directory import arrays_by_name
from shoal.search.runs.dry import first_files, starts
from shoal.search.runs.population import prepare_run
from shoal.search.traces import in_one_line, trace_of
from shoal.trainables.handover import handed_out

OF_RAY = 0.6  # share of the CPUs that workers get


class Measured(NamedTuple):
    """Seconds of one member, alone on the threads that a worker will have."""

    make: float
    step: float  # the second one: the first has to warm up
    score: float  # on the held-out rows of all groups
    weights: int | None  # numbers that its state holds


def measure(run: Run, model: Model) -> Measured:
    """Make the run's first member, train two steps, and score it; its rows are prepared if they are not there.

    Raises InputError if the member cannot do one of these.
    """
    alone = run.model_copy(update={"kind": "population", "swarm": None, "model": model})
    run = prepare_run(alone if run.kind == "mixture" else run, Console(stderr=True))
    try:
        with threads_of_a_worker(run):
            return timed(run)
    except InputError:
        raise
    except Exception as error:  # the user's own code may raise anything
        trace = trace_of(error)
        raise InputError(f"--measure: {run.trainable}: {in_one_line(trace)}", trace) from error


def timed(run: Run) -> Measured:
    moments = [time.perf_counter()]

    def done() -> None:
        moments.append(time.perf_counter())

    member: Any = build_members(run, {0: starts(run)[0]}, streams=first_files)[0]
    if isinstance(member, Unmade):
        raise member.error
    done()
    for _ in range(2):
        member.train(1)
        done()
    member.evaluate("validation")
    done()
    made, first, second, scored = (after - before for before, after in pairwise(moments))
    return Measured(made, min(first, second), scored, weights_in(handed_out(member.state)))


def weights_in(state: Any) -> int | None:
    """Return how many numbers the weights of a state hold; None if it has no `weights`."""
    if not isinstance(state, dict) or "weights" not in state:
        return None
    return sum(weight.size for weight in arrays_by_name(state["weights"]).values())


@contextmanager
def threads_of_a_worker(run: Run) -> Iterator[None]:
    """Let torch have as many threads as it will have on a worker of this machine."""
    import torch

    workers = run.cluster.broods * run.workers_per_brood
    share = run.cluster.cpus_per_worker or OF_RAY * (os.cpu_count() or 1) / workers
    before = torch.get_num_threads()
    torch.set_num_threads(run.cluster.threads_per_worker or max(1, math.ceil(share)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
