"""What the commands `run` and `resume` do around the training: corpus, Ray, report, export."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster import ending, lease
from cluster.session import NoRay, session
from cluster.storage import CannotWrite, Store
from search import directory
from search.config import Run
from search.corpus.build import COLUMNS, describe, prepare_corpus
from search.corpus.scores import cost, score_corpus
from search.corpus.streams import windows
from search.driver.conductor import Watcher
from search.driver.measure import Measure, Watchers
from search.driver.population import Outcome, interrupted, train_population, with_way_on
from search.driver.progress import Progress
from search.driver.room import Regrouped
from search.errors import InputError, Interrupted, RunFailed
from search.exported import check_reference
from search.kinds import NoExploitRule
from search.mixture.mixing import Mixing, StratifiedMixture
from search.mixture.mixing_checks import check_with_rows, note_on_batches
from search.own import own_class
from search.report.story import CONTROLS, STRATIFIED
from search.report.write import write_report


def run_new(run: Run, console: Console, baseline: bool = False, resume: str = "never") -> None:
    """Train a new population, or as `resume` says the one that its directory already holds.

    With `baseline` its controls are trained as well.
    """
    if resume == "must" or (resume == "auto" and directory.holds_run(run.directory)):
        run_again(run, console, baseline)
        return
    directory.refuse_existing(run)
    directory.check_place(run)
    prepare(run, console)
    train(run, [run, *(controls(run) if baseline else [])], console)


def run_on(path: str, console: Console) -> None:
    """Continue a run, and its controls if they were begun, from the last checkpoints."""
    run, store = directory.open_run(path)
    baseline = store.exists(f"baseline/{directory.SETTINGS}")
    unfinished = unfinished_of(run, baseline)
    if not unfinished:
        raise InputError(f"{path} is finished: see {store.uri}/report.html.")
    prepare(run, console)
    train(run, unfinished, console)


def run_again(given: Run, console: Console, baseline: bool) -> None:
    """Continue the run of a directory as a job's retry does: to find it finished is no mistake."""
    run = directory.same_run(given)
    unfinished = unfinished_of(run, baseline)
    if not unfinished:
        console.print(f"{run.name}: is finished, see {run.directory}/report.html", highlight=False)
        return
    prepare(run, console)
    train(run, unfinished, console)


def unfinished_of(run: Run, baseline: bool) -> list[Run]:
    """Return the run and its controls, as far as they have not come to their end."""
    runs = [run, *(controls(run) if baseline else [])]
    return [each for each in runs if directory.summary(Store(each.directory)).get("status") != "done"]


def train(run: Run, runs: list[Run], console: Console) -> None:
    """Train runs one after another, each from its last checkpoint if it has one; then report on the first."""
    with ray_session(run) as dashboard:
        if dashboard and run.cluster.dashboard:
            console.print(f"dashboard: http://{dashboard}", highlight=False, soft_wrap=True)
        # not before: a run that could not begin would stand in the way of the next try
        for each in runs:
            if not directory.holds_run(each.directory):
                directory.create(each)
        score_rows(run, console)
        for each in runs:
            finish(each, console)
    close(run, Store(run.directory), console)


@contextlib.contextmanager
def ray_session(run: Run) -> Iterator[str]:
    """Connect to Ray, or start it; raises InputError where that cannot be done."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(session(run.cluster.dashboard))
        except NoRay as error:
            raise InputError(str(error)) from error
        yield found


def prepare(run: Run, console: Console) -> None:
    """Build the corpus if it is not there, and check that a batch can be cut from it."""
    if ":" in run.trainable:
        own_class(run.trainable)
    if not run.reads_text:
        return
    manifest = prepare_corpus(run.data, lambda line: console.print(line, highlight=False, soft_wrap=True))
    rows = {name: group.splits["train"].rows for name, group in manifest.groups.items()}
    check_rows(run, sum(rows.values()))
    large = windows(run.data, manifest)
    rule = run.sampling.rule
    if large and rule is not None and "order" in rule.build().spec.emits:
        raise InputError(
            f"sampling.rule: {rule.kind} puts all rows of a group in order, but {', '.join(large)} must "
            f"be streamed with data.memory_megabytes {run.data.memory_megabytes:g}; raise it."
        )
    if run.mixing is not None:
        check_reference(run)
        if problem := check_with_rows(run, rows):
            raise InputError(f"{problem}.")
        if note := note_on_batches(run):
            console.print(note, highlight=False, soft_wrap=True)


def show_corpus(run: Run, console: Console) -> None:
    """Build or load the run's corpus and print what it holds."""
    if not run.data.groups:
        raise InputError("data.groups: at least one group is needed, such as `code: installed`.")
    manifest = prepare_corpus(run.data, lambda line: console.print(line, highlight=False, soft_wrap=True))
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for line in describe(manifest):
        table.add_row(*map(str, line))
    console.print(table)
    console.print(f"corpus: {run.data.corpus}", highlight=False, soft_wrap=True)


def score_rows(run: Run, console: Console) -> None:
    """Score the training rows if the run's policy goes by scores and they are not there."""
    if (model := run.sampling.scorer) is not None:
        found = score_corpus(run.data, model, run.cluster.gpus_per_worker)
        console.print(
            f"scores: {found['rows']} rows by {model}, {found['passes']} pass, {found['seconds']:.1f} s",
            highlight=False,
            soft_wrap=True,
        )


def check_rows(run: Run, rows: int) -> None:
    """Refuse a corpus that is smaller than a batch."""
    if rows < run.training.batch:
        raise InputError(
            f"training.batch: must be at most the corpus's {rows} training rows of "
            f"{run.data.sequence_length} tokens, got {run.training.batch}; give more text or shorter rows."
        )


def finish(run: Run, console: Console) -> Outcome:
    """Train a run to its end and write what it came to."""
    with lease.holding(run.directory) as store, well_recorded(run, store):
        directory.note_job(store)
        record(store, run, "running")
        with Progress(run, console, run.label) as progress, Measure(run) as measure:
            outcome = train_on(run, Watchers(progress, measure), store, console)
        record(store, run, "done", outcome)
    return outcome


@contextlib.contextmanager
def well_recorded(run: Run, store: lease.LeasedStore) -> Iterator[None]:
    """Write down how a run ended that did not come to its end, also where a signal leaves no time for more."""

    def stopped() -> str:
        note(run, store, "interrupted")
        return f"interrupted: {interrupted(run)}"

    try:
        with ending.last_words(stopped):
            yield
    except BaseException as error:
        signalled = ending.came() or isinstance(error, Interrupted | KeyboardInterrupt)
        note(run, store, "interrupted" if signalled else "failed")
        if signalled:  # whatever it was that then could not be done
            raise interrupted(run) from error
        if isinstance(error, CannotWrite):
            raise RunFailed(with_way_on(run, str(error))) from error
        if isinstance(error, lease.LeaseLost):
            raise RunFailed(str(error)) from error
        raise


def note(run: Run, store: lease.LeasedStore, status: str) -> None:
    """Record a status where that can be done: else the new driver has the word, or the lease tells."""
    with contextlib.suppress(CannotWrite, lease.LeaseLost):
        record(store, run, status)


def train_on(run: Run, watcher: Watcher, store: Store, console: Console) -> Outcome:
    """Train to the end, with as many broods as there is room for at each time."""
    while True:
        try:
            return train_population(run, watcher, store=store)
        except Regrouped as news:
            console.print(f"{run.label}: {news}", highlight=False, soft_wrap=True)


def controls(run: Run) -> list[Run]:
    """Return the runs of the same budget that a run is judged by, each in a folder of its own."""
    return [without_exploits(run), *([in_equal_shares(run)] if run.mixing is not None else [])]


def without_exploits(run: Run) -> Run:
    """Return the control: the same members with the same budget, each left to itself."""
    population = run.population.model_copy(
        update={"exploit": NoExploitRule(kind="none"), "cull": None, "backtrack": False}
    )
    return run.model_copy(update={"population": population, "directory": f"{run.directory}/baseline"})


def in_equal_shares(run: Run) -> Run:
    """Return the control of a mixture: the same population with as many rows of every group."""
    searched = {name: domain for name, domain in run.hyperparameters.items() if name != "mixing"}
    # what is unseen stays so, and is what members are scored by
    even = Mixing(policy=StratifiedMixture(kind="stratified"), unseen=run.unseen)
    mixing = even if run.unseen else None
    plain = {"mixing": mixing, "hyperparameters": searched, "name": f"{run.name}-{STRATIFIED}"}
    equal = run.model_copy(update={**plain, "directory": f"{run.directory}/{STRATIFIED}"})
    # nothing is left to vary where only the mixture was searched
    return equal if searched else equal.model_copy(update={"population": without_exploits(run).population})


def record(store: Store, run: Run, status: str, outcome: Outcome | None = None) -> None:
    known: dict[str, Any] = {"status": status, "members": run.population.members, "rounds": run.rounds}
    if run.sampling.scorer is not None:
        known["scoring"] = cost(run.data, run.sampling.scorer)
    store.write_json(directory.SUMMARY, known | (asdict(outcome) if outcome else {}))


def close(run: Run, store: Store, console: Console) -> None:
    """Draw the report, export the best member, and say what came out and where everything is."""
    found = directory.summary(store)
    beside = {
        name: directory.summary(Store(f"{store.uri}/{folder}"))
        for folder, name in CONTROLS.items()
        if store.exists(f"{folder}/{directory.SUMMARY}")
    }
    if beside:
        console.print(compare(run, found, beside))
    folder = directory.export(run, store)
    report = write_report(store)
    places = {"report": report, "best member": f"{folder}/model.safetensors", "run directory": store.uri}
    console.print(headline(run, found), highlight=False, soft_wrap=True)
    for name, place in places.items():
        console.print(f"  {name:14}{place}", highlight=False, soft_wrap=True)


def headline(run: Run, found: dict[str, Any]) -> str:
    score = -found["best_score"] if run.reads_text else found["best_score"]
    parts = [
        f"{run.name}: best member {found['best_member']}",
        f"{'validation loss' if run.reads_text else 'score'} {score:.4f}",
        *(f"test {group} {loss:.4f}" for group, loss in found["test_loss"].items()),
        f"{found['exploits']} exploits",
        f"{seconds(found):.0f} s",
    ]
    return "  ".join(parts)


def compare(run: Run, found: dict[str, Any], beside: dict[str, dict[str, Any]]) -> Table:
    """Return the population beside its controls, at equal steps."""
    table = Table("", run.population.exploit.kind, *beside, box=None, pad_edge=False)
    sign = -1 if run.reads_text else 1
    name = "best validation loss" if run.reads_text else "best score"
    each = [found, *beside.values()]
    table.add_row(name, *(f"{sign * one['best_score']:.4f}" for one in each))
    for group in found["test_loss"]:
        table.add_row(f"test loss, {group}", *(f"{one['test_loss'][group]:.4f}" for one in each))
    table.add_row("exploits", *(str(one["exploits"]) for one in each))
    table.add_row("seconds", *(f"{seconds(one):.0f}" for one in each))
    return table


def seconds(found: dict[str, Any]) -> float:
    """Return what a run took, with the scoring of its rows, also where an earlier run had scored them."""
    return float(found["wall_seconds"] + found.get("scoring", {}).get("seconds", 0.0))
