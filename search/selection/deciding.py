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
from shoal.search.selection.corpora import (
    LEFT_OUT,
    SAME,
    Corpus,
    RowPlaces,
    column_names,
    in_places,
    places_by_id,
    read_columns,
    read_groups,
    read_ids,
)
from shoal.search.selection.leaks import IN_TARGET, MANY, Leak

NEAR_DUPLICATE = "a near duplicate"
BARRED = (IN_TARGET, NEAR_DUPLICATE)
MOST_NAMED = 3  # rows that a message names


class PoolRows(NamedTuple):
    """All training rows of a pool, in the order of their ids."""

    ids: NDArray[np.int64]
    group: NDArray[np.int16]
    places: RowPlaces  # where a row of the files, in their order, stands in the other columns
    barred: NDArray[np.int8]  # 0, or 1 more than the place in `BARRED` of why it cannot be chosen
    same_as: NDArray[np.int64] | None = None  # the row that each is a near duplicate of, else its own id


class Decided(NamedTuple):
    """All training rows of a pool, in an order of their own, and what was decided about each."""

    ids: NDArray[np.int64]
    group: NDArray[np.integer]
    places: RowPlaces  # where a row of the files, in their order, stands in the other columns
    selected: Selected
    same_as: NDArray[np.int64] | None = None  # None: no near duplicates were looked for
    folders: tuple[str, ...] = ()  # where the scores of the rows are
    computed: Mapping[str, NDArray[Any]] = MappingProxyType({})  # columns that only the decision has made


def pool_rows(pool: Corpus, leak: Leak | None, same: str) -> PoolRows:
    """Return the rows of a pool; `same` is the folder of what near duplicates were found, or empty."""
    ids = read_ids(pool)
    places = places_by_id(ids)
    ids = in_places(ids, places)
    barred = np.zeros(len(ids), np.int8)
    if leak is not None:
        barred[places[leak.rows]] = 1
    same_as = read_columns(pool, [same], {SAME}, places)[SAME] if same else None
    if same_as is not None:
        barred[same_as != ids] = 2
    return PoolRows(ids, in_places(read_groups(pool), places), places, barred, same_as)


def decide_rows(
    run: Run,
    pool: Corpus,
    rows: PoolRows,
    folders: list[str],
    targets: dict[str, NDArray[Any]],
    report: Callable[[str], None],
) -> Decided:
    """Return the decisions; raises InputError for bad scores and for what the policy refuses."""
    selection = run.selection
    assert selection is not None
    policy, count = selection.policy.build(), len(rows.ids)
    made = column_names(pool, folders)
    if selection.mix:
        check_present(selection, made, frozenset(selection.mix), "mix")
        made |= {MIX}
    check_present(selection, made, policy.needs, "policy")
    budget = selection.rows if selection.share is None else max(1, round(selection.share * count))
    found, computed = chosen_of(run, pool, rows, folders, (policy, targets, budget), report)
    if not found.rows:
        raise InputError(
            f"selection.policy: {selection.policy.kind} chose none of {count} rows; lower its cut, or keep a "
            f"larger share."
        )
    found = with_barred(found, rows.barred)
    return Decided(rows.ids, rows.group, rows.places, found, rows.same_as, tuple(folders), computed)


def chosen_of(
    run: Run,
    pool: Corpus,
    rows: PoolRows,
    folders: list[str],
    asked: tuple[Any, dict[str, NDArray[Any]], int | None],
    report: Callable[[str], None],
) -> tuple[Selected, dict[str, NDArray[Any]]]:
    """Return decisions about the rows that are not barred, and the columns made on the way.

    `asked` is the policy, what it knows of the target, and the budget. Only columns that the decision goes by
    are read, and of a mix all rows', since it is made of ranks.
    """
    (policy, targets, budget), mix = asked, run.selection.mix if run.selection else {}
    free, computed = rows.barred == 0, dict[str, NDArray[Any]]()
    if mix:
        columns = read_columns(pool, folders, set(policy.needs | mix.keys()) - {MIX}, rows.places)
        computed = {MIX: mixed_scores(columns, mix)}
        columns = {name: values[free] for name, values in (columns | computed).items() if name in policy.needs}
    else:
        columns = read_columns(pool, folders, set(policy.needs), free_places(rows.places, free))
    every = bool(free.all())
    ids, group = (rows.ids, rows.group) if every else (rows.ids[free], rows.group[free])
    del free
    check_finite(run, ids, {name: columns[name] for name in policy.needs}, report)
    try:
        given = Candidates(ids, columns, group, targets, budget, run.seed)
        del ids, group, columns
        return select_rows(policy, given), computed
    except ValueError as error:
        raise InputError(f"selection: {error}") from error


def free_places(places: RowPlaces, free: NDArray[np.bool_]) -> RowPlaces:
    """Return the place of each row among those that are free, in the order of the files."""
    if free.all():
        return places
    among = np.cumsum(free, dtype=np.uint32)
    among -= np.uint32(1)
    among[~free] = LEFT_OUT
    return among[places]


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


def with_barred(found: Selected, barred: NDArray[np.int8]) -> Selected:
    """Return decisions about the free rows as decisions about all; the others were barred beforehand."""
    if not barred.any():
        return found
    free = barred == 0
    copies, margin = np.zeros(len(free), np.int32), np.full(len(free), np.nan)
    copies[free], margin[free] = found.copies, found.margin
    reason = (len(found.reasons) - 1 + barred).astype(np.int16)
    reason[free] = found.reason
    return found._replace(copies=copies, margin=margin, reason=reason, reasons=(*found.reasons, *BARRED))


def check_leak(leak: Leak, most: float, target: str, report: Callable[[str], None]) -> None:
    """Report rows of the pool that the target has too; raise InputError if they are much of the target."""
    if leak.let_go:
        report(
            f"selection.target ({target}): {leak.let_go} of its prompts, answers and texts stand in more than "
            f"{MANY} rows of the pool each, and are no leaks"
        )
    if not leak.rows.any():
        return
    where = ", ".join(f"{count} in {name}" for name, count in leak.by_group.items())
    said = f"{leak.target} of its {leak.target_rows} rows stand in the pool too{leak.how} ({where})"
    if leak.share > most:
        raise InputError(
            f"selection.target ({target}): {said}, more than data.bad_share ({most:g}) allows: what is chosen "
            f"would be the target itself. Take the target's documents out of data.groups."
        )
    report(f"selection.target ({target}): {said}; these rows of the pool are left out")
