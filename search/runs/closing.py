"""The end of a run: its report, its best member and its closing words."""

import os
import shlex
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.records import directory
from shoal.search.records.directory import CONTROLS
from shoal.search.report.wording import with_error
from shoal.search.report.write import REPORT, write_report
from shoal.search.track.again import send_best


def close(run: Run, store: Store, console: Console) -> None:
    """Draw the report, export the best member, and print the result and where the files are."""
    found = directory.summary(store)
    beside = {
        name: directory.summary(Store(f"{store.uri}/{folder}"))
        for folder, name in CONTROLS.items()
        if store.exists(f"{folder}/{directory.SUMMARY}")
    }
    if beside:
        console.print(compare_with_controls(run, found, beside))
    directory.note_coded_size(run, store)
    report = write_report(store)
    file = directory.export_member(run, store)
    send_best(run, store, partial(console.print, highlight=False, soft_wrap=True, markup=False))
    places = {"report": report, "best member": file, "run directory": store.uri}
    if found.get("ended"):
        console.print(f"{run.name}: {found['ended']}", highlight=False, soft_wrap=True)
    console.print(headline(run, found), highlight=False, soft_wrap=True)
    for name, place in places.items():
        console.print(f"  {name:14}{place}", highlight=False, soft_wrap=True)


def print_next(run: Run, console: Console) -> None:
    """Say what can be done with a finished run, one line for each thing."""
    ended = bool(directory.summary(Store(run.directory)).get("ended"))
    for place, (command, told) in enumerate(next_steps(run, ended)):
        head = "next" if not place else ""
        console.print(f"  {head:14}{command}  ({told})", highlight=False, soft_wrap=True, markup=False)


def next_steps(run: Run, ended: bool = False) -> list[tuple[str, str]]:
    """Return commands for a finished run, each with what it does; a run that `ended` early has no replay."""
    place = shlex.quote(from_here(run.directory))
    steps = [
        (f"shoal report {place} OTHER", "this run beside others, in one page"),
        (f"shoal export {place} --member 0 --to FOLDER", "the weights of any member"),
    ]
    if not ended and not run.population.backtrack:
        steps.append((f"shoal replay {place}", "train one model along the schedule of the best"))
    if run.trainable == "causal_lm":
        begin = shlex.quote(f"{from_here(run.directory)}/best")
        return [*steps, (f"shoal run FILE model.begin={begin}", "go on from the best on other data")]
    return [*steps, (f"shoal schedule {place} > schedule.yaml", "that schedule, for a run on other data")]


def from_here(directory: str) -> str:
    """Return a run's directory as it is called from here, if it lies below."""
    here = os.getcwd() + os.sep
    return directory.removeprefix(here) if "://" not in directory else directory


def is_closed(store: Store) -> bool:
    """Say whether all files of `close` are there; a run may be stopped before it has written them."""
    exported = store.exists("best/config.json") or store.exists("best/shoal.json")  # an adapter has the second
    return exported and store.exists(REPORT)


def headline(run: Run, found: dict[str, Any]) -> str:
    score = -found["best_score"] if run.by_loss else found["best_score"]
    parts = [
        f"{run.name}: best member {found['best_member']}",
        f"{run.ranked_by} {score:.4f}",
        *(f"test {name} {value:.4f}" for name, value in test_values(run, found).items()),
        f"{found['exploits']} exploits",
        f"{seconds(found):.0f} s",
    ]
    return "  ".join(parts)


def test_values(run: Run, found: dict[str, Any]) -> dict[str, float]:
    """Return what the best member came to on the rows of the test split: losses by group, score, measures."""
    score = found.get("test_score")
    alone = {} if run.by_loss or score is None else {run.ranked_by: score}
    return {**alone, **found["test_loss"], **(found.get("test_measures") or {})}


def compare_with_controls(run: Run, found: dict[str, Any], beside: dict[str, dict[str, Any]]) -> Table:
    """Return the population beside its controls, at equal steps."""
    table = Table("", run.population.exploit.kind, *beside, box=None, pad_edge=False)
    sign = -1 if run.by_loss else 1
    name = f"best {run.ranked_by}"
    each = [found, *beside.values()]
    table.add_row(name, *(f"{sign * one['best_score']:.4f}" for one in each))
    tests = [test_values(run, one) for one in each]
    errors = [one.get("test_error") or {} for one in each]
    for name in tests[0]:
        label = f"test loss, {name}" if name in found["test_loss"] else f"test {name}"
        table.add_row(
            label,
            *(with_error(test.get(name), error.get(name)) for test, error in zip(tests, errors, strict=True)),
        )
    table.add_row("exploits", *(str(one["exploits"]) for one in each))
    table.add_row("seconds", *(f"{seconds(one):.0f}" for one in each))
    return table


def seconds(found: dict[str, Any]) -> float:
    """Return the seconds of a run, including those of scoring its rows, even if an earlier run scored them."""
    return float(found["wall_seconds"] + found.get("scoring", {}).get("seconds", 0.0))
