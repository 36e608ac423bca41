"""The main path: one population trained from its configuration to its best member."""

import math
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import tune

from shoal.cluster import checkpoints
from shoal.cluster.lease import BEAT, LEASE, LeasedStore
from shoal.cluster.ledger import Ledger
from shoal.cluster.mailbox import send_home, start_mailbox
from shoal.cluster.row_order import RowOrder
from shoal.cluster.session import asking_for, clear_away
from shoal.cluster.storage import Store
from shoal.cluster.workers import BroodResources, brood_trial
from shoal.search.config.run import Run
from shoal.search.corpus.batches import file_rows
from shoal.search.corpus.build import load_corpus
from shoal.search.corpus.streams import windows
from shoal.search.driver.asynchronous import Arrivals
from shoal.search.driver.conductor import Conductor, GiveOrders, Watcher, earlier_rounds
from shoal.search.driver.room import Room, brood_resources, fitting, room_to_grow, with_room
from shoal.search.driver.scheduler import PopulationScheduler
from shoal.search.driver.start import first_state
from shoal.search.errors import Interrupted, RunFailed
from shoal.search.members.ledger import after_marks, open_ledger
from shoal.search.records import tables
from shoal.search.records.beginning import begun_with
from shoal.search.records.directory import SETTINGS, TRACKED
from shoal.search.records.whole import WholeRound, newest_whole
from shoal.search.traces import in_one_line
from shoal.search.worker.first import train_brood
from shoal.search.worker.work import Work

TRACE, RAY = "failures/run.txt", "ray"  # in the run directory: why it failed; what Ray keeps of it
BroodLoop = Callable[[dict[str, Any]], None]  # each Train worker runs it


@dataclass(frozen=True)
class Outcome:
    """What a finished run has to say."""

    best_member: int
    best_score: float
    exploits: int
    wall_seconds: float
    rows: int
    tokens: int
    threads: int  # torch has so many on each worker; another number rounds otherwise
    test_loss: dict[str, float]
    test_score: float | None = None  # None where nothing was tested
    test_measures: dict[str, float] = field(default_factory=dict)  # such as accuracy_GROUP
    test_error: dict[str, float] = field(default_factory=dict)  # standard error of each group's test loss
    ended: str | None = None  # why the run ended before its last step, if it did


def train_population(
    run: Run, watcher: Watcher, loop: BroodLoop = train_brood, store: Store | None = None
) -> Outcome:
    """Train a population on the connected Ray, from its last checkpoint if it has one.

    Raises Regrouped when another number of broods finds room: called again, it goes on with that.
    """
    began, store = time.monotonic(), store or Store(run.directory)
    asked, run = run, with_room(run)
    resources = brood_resources(run)
    whole = go_back(run, store, watcher)
    # a brood that comes back may need what was handed over since its last checkpoint
    mailbox = start_mailbox(run.cluster.broods, run.checkpoint.every + 1)
    ledger = open_ledger(run, store, whole.round)
    conductor = conductor_at(whole, run, store, way_to_members(run, mailbox, ledger), watcher)
    work = Work(
        run,
        whole.state,
        threads_of(run, resources),
        ledger,
        over=bool(whole.read_out or whole.stopping.get("reason")),
    )
    place = run.data.corpus, f"{run.directory}/{RAY}"
    trial = brood_trial(loop, work, mailbox, resources, training_files(run), *place, staged(run))
    room = Room(run.cluster.broods, lambda: fitting(asked), lambda: send_home(mailbox, run.cluster.broods))
    with room, asking_for(room_to_grow(asked)):
        errors = tuner(run, trial, conductor).fit().errors
    clear_away_pieces(store)
    raise_what_ended(conductor, room, errors)
    store.write_json(tables.TESTS, {member: each.losses for member, each in conductor.tests.items()})
    if run.checkpoint.keep == 1:
        conductor.keep_last()
    return outcome(conductor, time.monotonic() - began, work.threads)


def go_back(run: Run, store: Store, watcher: Watcher) -> WholeRound:
    """Return the newest round that is whole, and delete what came after it; a new run begins with round 0.

    Nothing is deleted before all of that round has been read.
    """
    whole = newest_whole(run, store, watcher.say)
    if whole is None:
        tables.drop_rounds_after(store, -1)
        checkpoints.forget_all_but(store, None)
        state = first_state(run)
        begun = begun_with(run)
        tables.write_starts(store, state, begun and begun.origin)
        return WholeRound(0, state)
    tables.drop_rounds_after(store, whole.round)
    checkpoints.forget_all_but(store, whole.round, run.shares, earlier_rounds(whole.state, run.parts))
    return whole


def conductor_at(
    whole: WholeRound, run: Run, store: Store, give_orders: GiveOrders, watcher: Watcher
) -> Conductor:
    """Return the conductor of the run's mode, which goes on from this round."""
    kind = Arrivals if run.population.mode == "asynchronous" else Conductor
    return kind.at(whole, run, store, give_orders, watcher)


def way_to_members(run: Run, mailbox: Any, ledger: Ledger | None) -> GiveOrders:
    """Return a function that takes orders to the members; it does not wait for the mailbox."""
    if run.population.mode == "asynchronous":
        give: GiveOrders = mailbox.give_verdicts.remote
        return give
    return after_marks(ledger, mailbox.give_orders.remote)


def threads_of(run: Run, resources: BroodResources) -> int:
    """Return how many threads torch has on each worker."""
    return run.cluster.threads_per_worker or max(1, math.ceil(resources.cpus_per_worker))


def raise_what_ended(conductor: Conductor, room: Room, errors: Sequence[Exception]) -> None:
    """Raise what ended a run before its end, if anything did."""
    run, store = conductor.run, conductor.store
    if conductor.broken is not None:
        raise conductor.broken
    conductor.wait()
    if conductor.failure:
        if isinstance(store, LeasedStore):
            store.check()  # a worker that cannot write any more may have been the first to say so
        raise failed(run, store, conductor.failure)
    if not conductor.finished:
        clear_away()
        room.check()
        raise failure(run, store, errors)


def clear_away_pieces(store: Store) -> None:
    """Take away what the run has still written into a directory while it was being deleted.

    Tune makes such a directory anew, and a deletion stops at a folder into which a member is just written.
    """
    pieces = {RAY, checkpoints.CHECKPOINT_FOLDER, tables.METRICS, tables.LINEAGE, tables.MIXING, BEAT, TRACKED}
    if not isinstance(store, LeasedStore) or store.exists(LEASE) or store.exists(SETTINGS):
        return
    if set(store.names()) <= pieces:
        Store(store.uri).delete("")  # a lease is not needed any more, and is not there


def tuner(run: Run, trial: Any, conductor: Conductor) -> tune.Tuner:
    """Return the experiment of the run's broods, one trial each."""
    return tune.Tuner(
        trial,
        param_space={"brood": tune.grid_search(list(range(run.cluster.broods)))},
        tune_config=tune.TuneConfig(scheduler=PopulationScheduler(conductor), reuse_actors=False),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=f"{run.directory}/{RAY}",
            verbose=0,
            progress_reporter=tune.CLIReporter(),  # the one for notebooks clears what a cell has shown
            failure_config=tune.FailureConfig(fail_fast=True),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


def training_files(run: Run) -> dict[str, list[str]]:
    """Return the files of each group that workers hold whole, in the order of the first epoch."""
    if not run.takes_rows:
        return {}
    manifest = load_corpus(run.data)
    large = windows(run.data, manifest)
    files = {}
    for group, splits in manifest.groups.items():
        if group in large or group in run.unseen:  # the workers read the large ones by themselves
            continue
        split = splits.splits["train"]
        order = RowOrder(group, file_rows(split), run.seed).files(0)
        files[group] = [split.files[place] for place in order]
    return files


def staged(run: Run) -> dict[str, Any]:
    """Return the datasets that a stage before the training makes: what a teacher shows of the rows."""
    if run.distill is None or not run.distill.staged:
        return {}
    from shoal.search.distill.stage import stage  # imported late: it needs torch

    return stage(run)


def outcome(conductor: Conductor, wall_seconds: float, threads: int) -> Outcome:
    best = conductor.best()
    tested = conductor.tests[best]
    return Outcome(
        best_member=best,
        best_score=conductor.last[best].score,
        exploits=conductor.exploits,
        wall_seconds=wall_seconds,
        rows=sum(row.rows for row in conductor.last.values()),
        tokens=sum(row.tokens for row in conductor.last.values()),
        threads=threads,
        test_loss=dict(tested.losses),
        test_score=tested.score if math.isfinite(tested.score) else None,
        test_measures=dict(tested.measures),
        test_error=dict(tested.loss_errors),
        ended=early_end(conductor),
    )


def early_end(conductor: Conductor) -> str | None:
    """Return where and why a run ended before the last step; None if it did not."""
    run, steps = conductor.run, sorted(row.step for row in conductor.last.values())
    if not conductor.over or steps[0] >= run.training.steps:
        return None
    where = f"step {steps[0]}" if steps[0] == steps[-1] else f"steps {steps[0]} to {steps[-1]}"
    if conductor.stopping.reason:
        return f"the run was stopped at {where} of {run.training.steps}: {conductor.stopping.reason}"
    why = f"{', '.join(conductor.read_out)} read to the end (data.exhausted: {run.data.exhausted})"
    return f"the rows ended at {where} of {run.training.steps}: {why}"


def failure(run: Run, store: Store, errors: Sequence[Exception]) -> RunFailed:
    """Return why a run ended early, or that nobody said why."""
    return failed(run, store, str(errors[0])) if errors else interrupted(run)


def interrupted(run: Run) -> Interrupted:
    return Interrupted(f"stopped before the end. {way_on(run)}")


def failed(run: Run, store: Store, reason: str) -> RunFailed:
    """Return why a run ended, in one line; what a worker or Ray says in more is kept in the run directory."""
    said = in_one_line(reason).rstrip(".")
    if "\n" in reason.strip():
        try:
            store.write(TRACE, reason)
            said += f". The whole trace is in {store.uri}/{TRACE}"
        except Exception as error:  # the run may have failed because nothing can be written
            said += f". The whole trace cannot be written: {in_one_line(str(error)).rstrip('.')}"
    return RunFailed(f"{said}. {way_on(run)}")


def way_on(run: Run) -> str:
    return f"Continue with `shoal resume {shlex.quote(run.directory)}`."
