"""What `shoal select` does, and what a run with `selection:` does before it trains."""

from collections.abc import Callable
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from shoal.cluster.storage import Store
from shoal.search.checks.run import problems
from shoal.search.config.run import Run
from shoal.search.corpus.manifest import find_corpus
from shoal.search.errors import InputError
from shoal.search.selection.page import PAGE, write_page
from shoal.search.selection.select import Chosen, select_corpus, selected_run
from shoal.search.selection.writing import DECISIONS, decision_of


def show_selection(run: Run, console: Console, explain: int | None = None) -> None:
    """Select a run's rows and print what was chosen of each group, or why one row was or was not."""
    if run.selection is None:
        raise InputError(
            "selection: the file must say how rows are chosen, such as `selection: {policy: dsir, ...}`."
        )
    report = partial(_line, console)
    chosen = select_corpus(run, report, renew=explain is None)
    if explain is not None:
        report(why(chosen, explain))
        return
    record, table = chosen.record, Table("group", "rows", "kept", "share", "copies", box=None, pad_edge=False)
    for name, group in record["groups"].items():
        share = f"{group['kept'] / max(group['rows'], 1):.1%}"
        table.add_row(name, str(group["rows"]), str(group["kept"]), share, str(group["copies"]))
    console.print(table)
    for line in said_of_record(record):
        report(line)
    write_page(run, chosen)
    report(f"chosen rows: {chosen.data.corpus}")
    report(f"page: {chosen.data.corpus}/{chosen.folder}/{PAGE}")


def said_of_record(record: dict[str, Any]) -> list[str]:
    """Return what is said of a selection in lines: why rows are in or out, and how near the target they are."""
    counts = ", ".join(f"{count} {said}" for said, count in record["reasons"].items())
    lines = [f"{record['kept']} of {record['rows']} rows kept: {counts}"]
    for name, kl in record["kl"].items():
        lines.append(f"KL to {name}: {kl['before']:.4f} before, {kl['after']:.4f} after")
    return lines


def why(chosen: Chosen, row: int) -> str:
    """Return in a line why a row was or was not chosen; raises InputError if the pool has no such row."""
    values = decision_of(Store(chosen.data.corpus), chosen.folder, row)
    if values is None:
        raise InputError(f"--explain: the pool has no row of id {row}; {DECISIONS} has the ids of all.")
    fixed = ("row_id", "group", "copies", "margin", "reason", "duplicate_of")
    scores = ", ".join(
        f"{name} {value:.4g}" for name, value in values.items() if name not in fixed and value is not None
    )
    times = f" {values['copies']} times" if values["copies"] > 1 else ""
    verdict = f"was chosen{times}" if values["copies"] else "was not chosen"
    alike = f" of {values['duplicate_of']}" if values["duplicate_of"] is not None else ""
    margin = values["margin"]
    away = f", {abs(margin):.4g} {'above' if margin >= 0 else 'below'} the cut" if margin == margin else ""
    return f"row {row} of {values['group']} {verdict}: {values['reason']}{alike}{away}; {scores or 'no scores'}"


def with_chosen_rows(run: Run, report: Callable[[str], None], renew: bool) -> Run:
    """Return the run on its chosen rows; they are chosen first, unless the run began with them."""
    if run.selection is None:
        return run
    if run.selection.chosen:
        if find_corpus(run.data) is None:
            raise InputError(
                f"selection: the rows that the run began with ({run.data.content}) are gone from "
                f"{run.data.corpus}; choose them again with `shoal select FILE`."
            )
        return run
    chosen = select_corpus(run, report, renew)
    for line in said_of_record(chosen.record):
        report(f"selection: {line}")
    manifest = find_corpus(chosen.data)
    assert manifest is not None, "a finished selection has its corpus"
    made = selected_run(run, chosen, manifest)
    check_gone_groups(made, [name for name in run.data.groups if name not in manifest.groups])
    return made


def check_gone_groups(made: Run, gone: list[str]) -> None:
    """Raise InputError where a run needs groups of which no row was chosen."""
    found = problems(made) if gone else []
    given = made.data.proportions
    if gone and given is not None and not any(given.values()):
        found = ["data.proportions: the other groups have no share", *found]
    if found:
        raise InputError(
            f"selection: no row of {', '.join(gone)} was chosen, but the file needs such rows ({found[0]}); "
            f"choose more rows, or leave these groups out there."
        )


def _line(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)
