"""What the commands `run` and `resume` do around the training: corpus, Ray, report, export."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from shoal.cluster import ending, lease
from shoal.cluster.session import session
from shoal.cluster.storage import CannotWrite, Store
from shoal.search.checks.generated import note_on_own_writing
from shoal.search.checks.mixing import check_with_rows, note_on_batches
from shoal.search.checks.recipes import note_on_emulation
from shoal.search.checks.sampling import note_on_epochs
from shoal.search.config.run import Run
from shoal.search.corpus.build import COLUMNS, describe, prepare_corpus, why_skipped
from shoal.search.corpus.questions import questions_of
from shoal.search.corpus.streams import windows
from shoal.search.driver.conductor import Watcher
from shoal.search.driver.metrics import Measure, Watchers
from shoal.search.driver.population import Outcome, interrupted, train_population, way_on
from shoal.search.driver.progress import Progress
from shoal.search.driver.room import Regrouped
from shoal.search.errors import InputError, Interrupted, RunFailed
from shoal.search.exported import check_reference
from shoal.search.members.own_class import own_class
from shoal.search.records import directory
from shoal.search.runs.closing import close, is_closed, print_next
from shoal.search.runs.controls import controls
from shoal.search.track.watching import Tracking


def run_new(run: Run, console: Console, baseline: bool = False, resume: str = "never") -> None:
    """Train a new population, or as `resume` says the one that its directory already holds.

    With `baseline` its controls are trained as well.
    """
    if resume == "must" or (resume == "auto" and directory.holds_run(run.directory)):
        run_again(run, console, baseline)
        return
    if run.refine is not None:
        raise InputError(
            "refine: these rounds are done by `shoal refine FILE`; leave the section out to run once."
        )
    directory.refuse_existing(run)
    directory.check_place(run)
    run = prepare_run(run, console, new=True)
    train(run, [run, *(controls(run) if baseline else [])], console)
    tell_next(run, console)


def run_on(path: str, console: Console) -> None:
    """Continue a run, and its controls if they were begun, from the last checkpoints."""
    run, store = directory.going_on(path)
    baseline = store.exists(f"baseline/{directory.SETTINGS}")
    unfinished = unfinished_of(run, baseline)
    if not unfinished and is_closed(store):
        raise InputError(f"{path} is finished: see {store.uri}/report.html.")
    prepare_run(run, console)
    train(run, unfinished, console)
    tell_next(run, console)


def run_again(given: Run, console: Console, baseline: bool) -> None:
    """Continue the run of a directory, as a job's retry does; a finished run is no error."""
    run = directory.same_run(given)
    unfinished = unfinished_of(run, baseline)
    if not unfinished and is_closed(Store(run.directory)):
        console.print(f"{run.name}: is finished, see {run.directory}/report.html", highlight=False)
        return
    prepare_run(run, console)
    train(run, unfinished, console)
    tell_next(run, console)


def tell_next(run: Run, console: Console) -> None:
    if run.kind == "population":  # a distill run goes on, and says it at its own end
        print_next(run, console)


def unfinished_of(run: Run, baseline: bool) -> list[Run]:
    """Return those of the run and its controls that are not finished."""
    runs = [run, *(controls(run) if baseline else [])]
    return [each for each in runs if directory.summary(Store(each.directory)).get("status") != "done"]


def train(run: Run, runs: list[Run], console: Console) -> None:
    """Train runs one after another, each from its last checkpoint if it has one; then report on the first."""
    if runs:
        train_all(run, runs, console)
    try:
        close(run, Store(run.directory), console)
    except CannotWrite as error:
        raise RunFailed(f"{error} {way_on(run)}") from error


def train_all(run: Run, runs: list[Run], console: Console) -> None:
    with session(run.cluster.dashboard) as dashboard:
        if dashboard and run.cluster.dashboard:
            console.print(f"dashboard: http://{dashboard}", highlight=False, soft_wrap=True)
        # the directory is made only now: if the run cannot begin, none is in the way of the next try
        if not directory.holds_run(run.directory):
            directory.create(run)
        score_rows(run, console)
        for each in runs:
            if not directory.holds_run(each.directory):
                directory.create(each)
            finish(each, console)


def prepare_run(run: Run, console: Console, new: bool = False) -> Run:
    """Build the corpus if it is not there, and check the run against it; return the run with these rows.

    For a `new` run it is also built again if its sources have changed.
    """
    if run.own:
        own_class(run.trainable, run.code)
    if not run.takes_rows:
        return run
    if run.selection is not None:
        from shoal.search.runs.select import with_chosen_rows  # which imports torch

        run = with_chosen_rows(run, partial(print_line, console), renew=new)
    manifest = prepare_corpus(run.data, partial(print_line, console), renew=new)
    run = run.model_copy(update={"data": run.data.model_copy(update={"content": manifest.content})})
    rows = {name: group.splits["train"].rows for name, group in manifest.groups.items()}
    check_rows(run, rows, list(windows(run.data, manifest)))
    questions_of(run, partial(print_line, console))
    notes = [note_on_own_writing(run), note_on_batches(run) if run.mixing else "", note_on_epochs(run, rows)]
    notes.append(note_on_emulation(run) if run.described.network else "")
    for note in filter(None, notes):
        print_line(console, note)
    return run


def show_corpus(run: Run, console: Console) -> None:
    """Build or load the run's corpus and print what it holds."""
    if not run.data.groups:
        raise InputError("data.groups: at least one group is needed, such as `code: installed`.")
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        print_line(console, line)

    manifest = prepare_corpus(run.data, report, renew=True)
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in describe(manifest):
        table.add_row(*map(str, row))
    console.print(table)
    for line in why_skipped(manifest, run.data.corpus):
        if line not in said:
            print_line(console, line)
    print_line(console, f"corpus: {run.data.corpus}")


def print_line(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def score_rows(run: Run, console: Console) -> None:
    """Score the training rows if the run's policy needs scores and there are none yet."""
    if (model := run.sampling.scorer) is not None:
        from shoal.search.corpus.scores import score_corpus  # which imports torch

        found = score_corpus(run.data, model, run.cluster.gpus_per_worker)
        console.print(
            f"scores: {found['rows']} rows by {model}, {found['passes']} pass, {found['seconds']:.1f} s",
            highlight=False,
            soft_wrap=True,
        )


def check_rows(run: Run, rows: Mapping[str, int], streamed: Sequence[str]) -> None:
    """Raise InputError if the run cannot read a corpus with so many training rows of each group.

    `streamed` are the groups that no worker can hold whole.
    """
    total, rule = sum(rows.values()), run.sampling.rule
    if total < run.training.batch:
        raise InputError(
            f"training.batch: must be at most the corpus's {total} training rows of "
            f"{run.data.sequence_length} tokens, got {run.training.batch}; give more text or shorter rows."
        )
    if streamed and rule is not None and "order" in rule.build().spec.emits:
        raise InputError(
            f"sampling.rule: {rule.kind} puts all rows of a group in order, but {', '.join(streamed)} must "
            f"be streamed with data.memory_megabytes {run.data.memory_megabytes:g}; raise it."
        )
    if run.mixing is not None:
        check_reference(run)
        if problem := check_with_rows(run, rows):
            raise InputError(f"{problem}.")


def finish(run: Run, console: Console) -> Outcome:
    """Train a run to its end and write its result."""
    with lease.holding(run.directory) as store, well_recorded(run, partial(record_summary, store, run)):
        directory.note_job(store)
        record_summary(store, run, "running")
        with (
            Progress(run, console, run.label) as progress,
            Measure(run) as measure,
            Tracking(run, Store(run.directory), progress.say) as tracking,
        ):
            outcome = train_on(run, Watchers(progress, measure, tracking), store, console)
        record_summary(store, run, "done", outcome)
    return outcome


@contextlib.contextmanager
def well_recorded(run: Run, write: Callable[[str], None]) -> Iterator[None]:
    """Write down the status of a run that stops before its end, even if a signal leaves little time."""

    def note(status: str) -> None:
        # after a lost lease another driver writes the status; if nothing can be written, the lease shows it
        with contextlib.suppress(CannotWrite, lease.LeaseLost):
            write(status)

    ending.set_last_line(f"interrupted: {interrupted(run)}")
    try:
        with ending.last_words(partial(note, "interrupted")):
            yield
    except BaseException as error:
        signalled = ending.came() or isinstance(error, Interrupted | KeyboardInterrupt)
        note("interrupted" if signalled else "failed")
        if signalled:  # the error may be any: it came of the signal
            raise interrupted(run) from error
        if isinstance(error, CannotWrite):
            raise RunFailed(f"{error} {way_on(run)}") from error
        if isinstance(error, lease.LeaseLost):
            raise RunFailed(str(error)) from error
        raise


def train_on(run: Run, watcher: Watcher, store: Store, console: Console) -> Outcome:
    """Train to the end; when the room in the cluster changes, go on with another number of broods."""
    while True:
        try:
            return train_population(run, watcher, store=store)
        except Regrouped as news:
            console.print(f"{run.label}: {news}", highlight=False, soft_wrap=True)


def record_summary(store: Store, run: Run, status: str, outcome: Outcome | None = None) -> None:
    known: dict[str, Any] = {"status": status, "members": run.population.members, "rounds": run.rounds}
    # best_score and test_score are minus the loss where a loss ranks
    known |= {"ranked_by": run.ranked_by, "better": "lower" if run.by_loss else "higher"}
    if run.sampling.scorer is not None:
        from shoal.search.corpus.scores import cost  # which imports torch

        known["scoring"] = cost(run.data, run.sampling.scorer)
    store.write_json(directory.SUMMARY, known | (asdict(outcome) if outcome else {}))
