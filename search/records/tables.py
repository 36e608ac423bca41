"""The append-only tables of a run: lineage (which member copied which), metrics and mixtures.

Each round adds one Parquet part named for the round. A run that is resumed from round r drops the
parts after r and writes them again, so that no event is ever there twice.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from shoal.cluster.storage import PART, TEMPORARY, BrokenFile, Store
from shoal.policies.population import Order, PopulationState
from shoal.policies.space import Hyperparameters
from shoal.search.errors import InputError
from shoal.search.messages import Row

LINEAGE, METRICS, MIXING = "lineage.parquet", "metrics.parquet", "mixing.parquet"
TESTS = "tests.json"  # the test loss of each group, with each member's last weights

# field of a row -> how the columns of its groups begin
GROUP_COLUMNS = {
    "epochs": "epochs_",
    "losses": "loss_",
    "loss_errors": "error_",
    "skipped": "skipped_",
    "measures": "",
}
LINEAGE_SCHEMA = pa.schema(
    [
        ("event", pa.string()),
        ("round", pa.int32()),
        ("step", pa.int64()),
        ("member", pa.int32()),
        ("score", pa.float64()),
        ("parent", pa.int32()),
        ("parent_score", pa.float64()),
        ("before", pa.string()),
        ("after", pa.string()),
        ("parent_round", pa.int32()),  # the parent's own round whose weights were copied
        ("parent_step", pa.int64()),  # steps that these weights had trained by then
        ("origin", pa.string()),  # the other run whose weights a start began with, and how they changed
    ]
)
METRICS_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("step", pa.int64()),
        ("member", pa.int32()),
        ("brood", pa.int32()),
        ("score", pa.float64()),
        ("scored", pa.bool_()),  # false where the score is the last one of these weights, of an earlier round
        ("train_loss", pa.float64()),
        ("rows", pa.int64()),  # rows that the weights have trained
        ("tokens", pa.int64()),
        ("train_seconds", pa.float64()),
        ("evaluate_seconds", pa.float64()),
        ("exploit_seconds", pa.float64()),  # time that copying took since the row before
        ("checkpoint_seconds", pa.float64()),  # time that its checkpoint kept it from training since then
        ("stacked", pa.bool_()),
        ("arrival", pa.int64()),  # how many reports had been decided before this one
        ("kept", pa.float64()),  # share of the rows that a sampling policy keeps
        ("cost", pa.float64()),  # share of what the dearest settings cost, where settings trade loss for cost
    ]
)

MIXING_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("step", pa.int64()),
        ("member", pa.int32()),
        ("group", pa.string()),
        (
            "proportion",
            pa.float64(),
        ),  # share of the rows outside of probes; share of the loss if the policy weighs losses
        ("seen", pa.int64()),  # rows of the group that these weights have trained on
        ("rows", pa.int64()),  # all rows of the group
        ("evaluations", pa.int32()),
        ("probe_steps", pa.int64()),
        ("extra_steps", pa.int64()),  # steps of another run that the policy needs
        ("decision", pa.string()),
        ("effects", pa.list_(pa.float64())),  # one for each validated group, in nats a step for a share of 1
        ("errors", pa.list_(pa.float64())),  # standard errors of the effects
    ]
)
# columns that are in every part of a table, also in older ones
NEEDED = {
    LINEAGE: ("event", "round", "step", "member", "score", "parent", "parent_score", "before", "after"),
    METRICS: ("round", "step", "member", "score"),
    MIXING: ("round", "step", "member", "group", "proportion"),
}


class Event(NamedTuple):
    """A member's start, or its copy of `parent` after round `round`; scores are from before the copy.

    In a change a member is its own parent: it keeps its weights and gets other hyperparameters.
    """

    event: str  # "start", "copy" or "change"
    round: int
    step: int
    member: int
    score: float | None
    parent: int | None
    parent_score: float | None
    before: Hyperparameters | None
    after: Hyperparameters
    # round and step of the copied weights in asynchronous runs, where members count their own; else None
    parent_round: int | None = None
    parent_step: int | None = None
    origin: str | None = None  # JSON: the weights of another run that a start began with

    @property
    def copied_round(self) -> int:
        """The parent's own round whose weights were copied."""
        return self.round if self.parent_round is None else self.parent_round

    @property
    def began(self) -> int:
        """How many steps the weights of this event had trained."""
        return self.step if self.parent_step is None else self.parent_step


def write_starts(store: Store, state: PopulationState, origin: Mapping[str, Any] | None = None) -> None:
    """Record every member's first hyperparameters as round 0, and the other run that all began with."""
    came_of = json.dumps(origin) if origin else None
    write_events(
        store,
        0,
        [
            Event("start", 0, 0, number, None, None, None, None, known.hyperparameters, origin=came_of)
            for number, known in enumerate(state)
        ],
    )


def copy_events(orders: Sequence[Order], told: Mapping[int, Row], before: PopulationState) -> list[Event]:
    """Return the events of orders; `told` has each member's last row, and `before` its state at that time."""
    found = []
    for order in orders:
        own, donor, best = told[order.member], told[order.donor], before[order.donor].best
        kind = "copy" if order.donor != order.member else "change"
        source = donor.score, donor.round, donor.step
        if order.decision is not None and best is not None:
            source = best.score, best.decision, best.step
        values = before[order.member].hyperparameters, order.hyperparameters
        place = kind, own.round, own.step, order.member, own.score
        found.append(Event(*place, order.donor, source[0], *values, *source[1:]))
    return found


def write_events(store: Store, part: int, events: Sequence[Event]) -> None:
    if events:
        rows = [_event_columns(event) for event in events]
        _append(store, LINEAGE, part, pa.Table.from_pylist(rows, LINEAGE_SCHEMA))


def write_metrics(store: Store, round_: int, rows: Sequence[Row]) -> None:
    """Record one row for each member, with four kinds of columns for a group.

    `loss_GROUP` is its validation loss, `error_GROUP` the standard error of that over the held-out rows,
    `epochs_GROUP` how many epochs of it the member has read, and `skipped_GROUP` how many rows its window has
    left behind, if it is read through a window. What else a class measures has columns of its own names, such
    as `accuracy_GROUP`.
    """
    schema = METRICS_SCHEMA
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
    for field, prefix in GROUP_COLUMNS.items():
        known: list[Mapping[str, float]] = [getattr(row, field) for row in rows]
        for group in sorted({group for values in known for group in values}):
            columns[f"{prefix}{group}"] = [values.get(group) for values in known]
            schema = schema.append(pa.field(f"{prefix}{group}", pa.float64()))
    _append(store, METRICS, round_, pa.Table.from_pydict(columns, schema))


def row_of(columns: Mapping[str, Any]) -> Row:
    """Return a member's row as the table of metrics has it; older tables lack some columns."""
    there = {name: value for name, value in columns.items() if value is not None}
    found: dict[str, Any] = {name: there[name] for name in METRICS_SCHEMA.names if name in there}
    for field, prefix in GROUP_COLUMNS.items():
        named = [name for name in there if name.startswith(prefix)] if prefix else measured_columns(there)
        found[field] = {name.removeprefix(prefix): there[name] for name in named}
    return Row(**found)


def measured_columns(names: Iterable[str]) -> list[str]:
    """Return those columns of the metrics that hold what a class measures beside its losses."""
    prefixes = tuple(prefix for prefix in GROUP_COLUMNS.values() if prefix)
    return [name for name in names if name not in METRICS_SCHEMA.names and not name.startswith(prefixes)]


def write_mixing(store: Store, round_: int, rows: Sequence[Row]) -> None:
    """Record a row for each member and group: the mixture, and what the mixing policy has measured."""
    found = []
    for row in rows:
        if row.mixture is not None:
            place = {"round": row.round, "step": row.step, "member": row.member}
            whole = row.mixture._asdict()
            found += [place | whole | group._asdict() for group in whole.pop("groups")]
    if found:
        _append(store, MIXING, round_, pa.Table.from_pylist(found, MIXING_SCHEMA))


def read_table_rows(store: Store, name: str, until: int | None = None) -> list[dict[str, Any]]:
    """Return a table of the run directory as plain rows, of its parts up to a round if one is given.

    Raises InputError if it is not there or is empty, and BrokenFile if a part cannot be read.
    """
    parts = [part for part in store.parts(name) if until is None or round_of(part) <= until]
    try:
        found = [read_part(store, f"{name}/{part}") for part in parts]
    except FileNotFoundError:  # a run that is resumed meanwhile drops some parts
        found = []
    with store.guarded(name):  # a column of only some parts, such as a group's loss, is empty in the others
        rows: list[dict[str, Any]] = (
            pa.concat_tables(found, promote_options="default").to_pylist() if found else []
        )
    if not rows:
        raise InputError(
            f"{store.uri} must hold {name} with at least one row, but has none: "
            f"give the directory of a run that has finished a round."
        )
    return rows


def rows_backwards(store: Store, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table of the run directory, those of the newest part first."""
    for part in reversed(store.parts(name)):
        yield from read_part(store, f"{name}/{part}").to_pylist()


def read_part(store: Store, name: str) -> pa.Table:
    """Return one part; raises BrokenFile if it does not belong to its table."""
    part = store.read_part(name)
    if missing := [column for column in NEEDED[name.split("/")[-2]] if column not in part.column_names]:
        raise BrokenFile(store.path(name), f"it has no column {missing[0]}")
    return part


def round_of(part: str) -> int:
    """Return the round in a part's name."""
    return int(part.removeprefix("part-").removesuffix(".parquet"))


def drop_rounds_after(store: Store, round_: int) -> None:
    """Drop the parts after this round, and files that a killed run left unfinished."""
    for folder in (LINEAGE, METRICS, MIXING):
        for name in store.names(folder):
            written = TEMPORARY.fullmatch(name)
            if PART.fullmatch(written["name"] if written else name) and (written or round_of(name) > round_):
                store.delete(f"{folder}/{name}")


def _event_columns(event: Event) -> dict[str, Any]:
    before = None if event.before is None else json.dumps(event.before)
    return event._asdict() | {"before": before, "after": json.dumps(event.after)}


def _append(store: Store, folder: str, round_: int, table: pa.Table) -> None:
    store.write_table(f"{folder}/part-{round_:06d}.parquet", table)
