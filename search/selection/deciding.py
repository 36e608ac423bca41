"""Decide which rows of a pool are chosen: leaks, near duplicates and bad scores go first."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.selection.interface import Candidates, Selected, finite_rows, select_rows
from shoal.policies.selection.picking import mixed_scores
from shoal.search.config.run import Run
from shoal.search.config.selection import MIX, Selection
from shoal.search.errors import InputError
from shoal.search.selection.corpora import Corpus, column_names, read_columns, read_groups
from shoal.search.selection.leaks import IN_TARGET, Leak

NEAR_DUPLICATE = "a near duplicate"
MOST_NAMED = 3  # rows that a message names


class Decided(NamedTuple):
    """All training rows of a pool, in the order of its files, and what was decided about each."""

    ids: NDArray[np.int64]
    group: NDArray[np.int64]
    selected: Selected
    same_as: NDArray[np.int64]  # the id of the row that each one is a near duplicate of, else its own
    folders: tuple[str, ...] = ()  # where the scores of the rows are
    computed: Mapping[str, NDArray[Any]] = MappingProxyType({})  # columns that only the decision has made


def decide_rows(
    run: Run,
    pool: Corpus,
    ids: NDArray[np.int64],
    folders: list[str],
    targets: dict[str, NDArray[Any]],
    leak: Leak | None,
    same_as: NDArray[np.int64],
    report: Callable[[str], None],
) -> Decided:
    """Return the decisions; raises InputError for bad scores and for what the policy refuses."""
    selection = run.selection
    assert selection is not None
    policy, group = selection.policy.build(), read_groups(pool)
    made = column_names(pool, folders)
    if selection.mix:
        check_present(selection, made, frozenset(selection.mix), "mix")
        made |= {MIX}
    check_present(selection, made, policy.needs, "policy")
    # only what the decision goes by is read of all rows
    columns = read_columns(pool, folders, set(policy.needs | selection.mix.keys()))
    computed = {MIX: mixed_scores(columns, selection.mix)} if selection.mix else {}
    columns = columns | computed
    barred = {IN_TARGET: leak.rows if leak else np.zeros(len(ids), bool), NEAR_DUPLICATE: same_as != ids}
    free = ~(barred[IN_TARGET] | barred[NEAR_DUPLICATE])
    check_finite(run, ids[free], {name: columns[name][free] for name in policy.needs}, report)
    budget = selection.rows if selection.share is None else max(1, round(selection.share * len(ids)))
    given = Candidates(
        ids[free],
        {name: columns[name][free] for name in policy.needs},
        group[free],
        targets,
        budget,
        run.seed,
    )
    try:
        found = select_rows(policy, given)
    except ValueError as error:
        raise InputError(f"selection: {error}") from error
    if not found.rows:
        raise InputError(
            f"selection.policy: {selection.policy.kind} chose none of {len(ids)} rows; lower its cut."
        )
    return Decided(ids, group, with_barred(found, free, barred), same_as, tuple(folders), computed)


def check_present(selection: Selection, columns: set[str], wanted: frozenset[str], place: str) -> None:
    """Raise InputError where no scorer has made a column that is wanted."""
    if missing := sorted(wanted - columns):
        raise InputError(
            f"selection.{place}: needs the column {missing[0]}, but selection.scores made "
            f"{', '.join(sorted(columns)) or 'none'}."
        )


def check_finite(
    run: Run, ids: NDArray[np.int64], columns: dict[str, NDArray[Any]], report: Callable[[str], None]
) -> None:
    """Report rows whose scores are not finite; raise InputError if they are more than `data.bad_share`."""
    for name in sorted(columns):
        bad = np.sort(ids[~finite_rows(columns, frozenset({name}), len(ids))])
        if not len(bad):
            continue
        named = ", ".join(map(str, bad[:MOST_NAMED].tolist()))
        more = ", ..." * (len(bad) > MOST_NAMED)
        said = f"{len(bad)} of {len(ids)} rows have no finite {name} (row_id {named}{more})"
        if len(bad) > run.data.bad_share * len(ids):
            raise InputError(
                f"selection.scores: {said}, more than data.bad_share ({run.data.bad_share:g}) allows: mend the "
                f"scorer; if they are the scores of another corpus, make them anew for this one."
            )
        report(f"selection: {said} and are left out")


def with_barred(found: Selected, free: NDArray[np.bool_], barred: dict[str, NDArray[np.bool_]]) -> Selected:
    """Return decisions about the free rows as decisions about all; the others were barred beforehand."""
    copies, margin = np.zeros(len(free), np.int32), np.full(len(free), np.nan)
    reason = np.zeros(len(free), np.int16)
    copies[free], margin[free], reason[free] = found.copies, found.margin, found.reason
    reasons = found.reasons
    for said, rows in barred.items():
        reason[rows & ~free] = len(reasons)
        reasons = (*reasons, said)
    return found._replace(copies=copies, margin=margin, reason=reason, reasons=reasons)


def check_leak(leak: Leak, most: float, target: str, report: Callable[[str], None]) -> None:
    """Report rows of the pool that the target has too; raise InputError if they are much of the target."""
    if not leak.rows.any():
        return
    where = ", ".join(f"{count} in {name}" for name, count in leak.by_group.items())
    said = f"{leak.target} of its {leak.target_rows} rows stand in the pool too ({where})"
    if leak.share > most:
        raise InputError(
            f"selection.target ({target}): {said}, more than data.bad_share ({most:g}) allows: what is chosen "
            f"would be the target itself. Take the target's documents out of data.groups."
        )
    report(f"selection.target ({target}): {said}; these rows of the pool are left out")
