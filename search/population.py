"""The main path: one population trained from its configuration to its best member."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune

from cluster import checkpoints
from cluster.exchange import start_exchange
from cluster.session import capacity
from cluster.storage import Store
from cluster.streams import RowOrder
from cluster.workers import BroodResources, brood_trial
from policies import population
from search import records
from search.brood import train_brood
from search.conductor import Conductor, Watcher
from search.config import Run
from search.corpus.batches import file_rows
from search.corpus.build import load_corpus
from search.errors import InputError, Interrupted, RunFailed
from search.start import first_state
from search.tune import PopulationScheduler

BroodLoop = Callable[[dict[str, Any]], None]  # what runs on each Train worker


@dataclass(frozen=True)
class Outcome:
    """What a finished run has to say."""

    best_member: int
    best_score: float
    exploits: int
    wall_seconds: float
    tokens: int
    threads: int  # of torch, on each worker: another number rounds otherwise
    test_loss: dict[str, float]


def train_population(
    run: Run, watcher: Watcher, loop: BroodLoop = train_brood, store: Store | None = None
) -> Outcome:
    """Train a population on the connected Ray, from its last checkpoint if it has one."""
    began = time.monotonic()
    store = store or Store(run.directory)
    resources = brood_resources(run)
    conductor = open_conductor(run, store, watcher)
    # a brood that comes back may need what was handed over since its last checkpoint
    exchange = start_exchange(run.cluster.broods, run.checkpoint.every + 1)
    conductor.give_orders = exchange.give_orders.remote  # nobody waits for the mailbox here
    settings: dict[str, Any] = {
        "run": run.model_dump(mode="json"),
        "threads": run.cluster.threads_per_worker or max(1, math.ceil(resources.cpus_per_worker)),
        "starts": [known.hyperparameters for known in conductor.state] if not conductor.round else [],
    }
    trial = brood_trial(
        loop, settings, exchange, resources, training_files(run), run.data.corpus, f"{run.directory}/ray"
    )
    results = tune.Tuner(
        trial,
        param_space={"brood": tune.grid_search(list(range(run.cluster.broods)))},
        tune_config=tune.TuneConfig(scheduler=PopulationScheduler(conductor), reuse_actors=False),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=f"{run.directory}/ray",
            verbose=0,
            failure_config=tune.FailureConfig(fail_fast=True),
        ),
    ).fit()
    if conductor.failure:
        raise RunFailed(f"{conductor.failure.strip()}\n{way_on(run)}")
    if not conductor.finished:
        raise failure(run, results.errors)
    store.write_json(records.TESTS, conductor.tests)
    return outcome(conductor, time.monotonic() - began, settings["threads"])


def open_conductor(run: Run, store: Store, watcher: Watcher) -> Conductor:
    """Return the conductor as the last whole checkpoint left it, or a new one."""
    space, rules = run.space(), run.rules()
    resumed = checkpoints.latest(store, range(run.population.members))
    for kept in (records, checkpoints):
        kept.forget_after(store, -1 if resumed is None else resumed)
    if resumed is None:
        state = first_state(run)
        records.write_starts(store, state)
        return Conductor(run, store, space, rules, state, _no_orders, watcher)
    plain = checkpoints.load_decisions(store, resumed)
    state = population.from_plain(plain["members"])
    last = {
        row["member"]: row for row in store.read_table(records.METRICS).to_pylist() if row["round"] == resumed
    }
    return Conductor(
        run,
        store,
        space,
        rules,
        state,
        _no_orders,
        watcher,
        round=resumed,
        exploits=plain["exploits"],
        last=last,
    )


def brood_resources(run: Run) -> BroodResources:
    """Return what each brood asks for; all broods must fit at once, since none waits for another's end."""
    had = capacity()
    each = run.cluster
    resources = BroodResources(
        each.broods,
        each.workers_per_brood,
        each.cpus_per_worker or cpus_for(run, had.get("CPU", 0.0)),
        each.gpus_per_worker,
        each.restarts,
    )
    for kind, needed in resources.needed().items():
        if needed > had.get(kind, 0.0) + 1e-9:
            raise InputError(
                f"cluster: {each.broods} broods need {needed:g} {kind}s at once, but the Ray cluster has "
                f"{had.get(kind, 0.0):g}. Lower cluster.broods, cluster.workers_per_brood or "
                f"cluster.{kind.lower()}s_per_worker."
            )
    return resources


def cpus_for(run: Run, cpus: float) -> float:
    """Share 60 % of the CPUs among the workers; the rest is for Ray Data's tasks and the trials."""
    share = 0.6 * cpus / (run.cluster.broods * run.cluster.workers_per_brood)
    return float(int(share)) if share >= 1 else round(share, 2)


def training_files(run: Run) -> dict[str, list[str]]:
    """Return each group's files in the order of the first epoch, the order in which they stream in."""
    if not run.reads_text:
        return {}
    manifest = load_corpus(run.data)
    files = {}
    for group, splits in manifest.groups.items():
        split = splits.splits["train"]
        order = RowOrder(group, file_rows(split), run.seed).files(0)
        files[group] = [split.files[place] for place in order]
    return files


def outcome(conductor: Conductor, wall_seconds: float, threads: int) -> Outcome:
    best = conductor.best()
    return Outcome(
        best_member=best,
        best_score=conductor.last[best]["score"],
        exploits=conductor.exploits,
        wall_seconds=wall_seconds,
        tokens=conductor.tokens(conductor.round) * len(conductor.state),
        threads=threads,
        test_loss=conductor.tests[best],
    )


def failure(run: Run, errors: Sequence[Exception]) -> RunFailed:
    """Return why a run ended early; Tune takes Ctrl-C itself and then simply returns."""
    if not errors:
        return Interrupted(f"stopped before the end. {way_on(run)}")
    # the last lines of what happened on the worker; Ray wraps it in its own traces
    return RunFailed(f"{str(errors[0]).strip()}\n{way_on(run)}")


def way_on(run: Run) -> str:
    return f"Continue with `shoal resume {run.directory}`."


def _no_orders(round_: int, orders: Any) -> None:
    raise AssertionError("orders were given before the exchange was there")
