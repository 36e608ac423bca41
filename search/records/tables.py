"""The append-only tables of a run: lineage (which member copied which), metrics and mixtures.

Each round adds one Parquet part named for the round. A run that is resumed from round r drops the
parts after r and writes them again, so that no event is ever there twice.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from shoal.cluster.storage import PART, TEMPORARY, BrokenFile, Store
from shoal.policies.population import Order, PopulationState
from shoal.search.errors import InputError

LINEAGE, METRICS, MIXING = "lineage.parquet", "metrics.parquet", "mixing.parquet"
TESTS = "tests.json"  # the test loss of each group, with each member's last weights

OF_GROUPS = ("loss_", "epochs_", "skipped_")
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
    ]
)
METRICS_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("step", pa.int64()),
        ("member", pa.int32()),
        ("brood", pa.int32()),
        ("score", pa.float64()),
        ("train_loss", pa.float64()),
        ("tokens", pa.int64()),
        ("train_seconds", pa.float64()),
        ("evaluate_seconds", pa.float64()),
        ("exploit_seconds", pa.float64()),  # what copying took this member since its row before
        ("checkpoint_seconds", pa.float64()),  # what its checkpoint kept it from training since then
        ("stacked", pa.bool_()),
        ("arrival", pa.int64()),  # how many reports had been decided before this one
        ("kept", pa.float64()),  # share of the rows that a sampling policy keeps
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


def write_starts(store: Store, state: PopulationState) -> None:
    """Record every member's first hyperparameters as round 0."""
    rows = [_event("start", 0, 0, number, after=known.hyperparameters) for number, known in enumerate(state)]
    _append(store, LINEAGE, 0, pa.Table.from_pylist(rows, LINEAGE_SCHEMA))


def copy_rows(
    orders: Sequence[Order], told: Mapping[int, Mapping[str, Any]], before: PopulationState
) -> list[dict[str, Any]]:
    """Return the events of orders; `told` has each member's last row, and `before` its state at that time."""

    def source(order: Order) -> dict[str, Any]:
        best = before[order.donor].best
        if order.decision is None or best is None:
            row = told[order.donor]
            return {"parent_score": row["score"], "parent_round": row["round"], "parent_step": row["step"]}
        return {"parent_score": best.score, "parent_round": best.decision, "parent_step": best.step}

    return [
        _event(
            "copy" if order.donor != order.member else "change",
            told[order.member]["round"],
            told[order.member]["step"],
            order.member,
            order.hyperparameters,
        )
        | {
            "score": told[order.member]["score"],
            "parent": order.donor,
            **source(order),
            "before": json.dumps(before[order.member].hyperparameters),
        }
        for order in orders
    ]


def write_copies(store: Store, part: int, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        _append(store, LINEAGE, part, pa.Table.from_pylist([dict(row) for row in rows], LINEAGE_SCHEMA))


def write_metrics(store: Store, round_: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record one row for each member, with three kinds of columns for a group.

    `loss_GROUP` is its validation loss, `epochs_GROUP` how many epochs of it the member has read, and
    `skipped_GROUP` how many rows its window has left behind, if it is read through a window.
    """
    schema = METRICS_SCHEMA
    for name in sorted({name for row in rows for name in row if name.startswith(OF_GROUPS)}):
        schema = schema.append(pa.field(name, pa.float64()))
    _append(store, METRICS, round_, pa.Table.from_pylist([dict(row) for row in rows], schema))


def write_mixing(store: Store, round_: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record a row for each member and group: the mixture, and what the mixing policy has measured."""
    found = []
    for row in rows:
        if told := row.get("mixing"):
            place = {"round": row["round"], "step": row["step"], "member": row["member"]}
            whole = {name: told[name] for name in ("evaluations", "probe_steps", "extra_steps", "decision")}
            found += [place | whole | of_group for of_group in told["groups"]]
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


def _event(event: str, round_: int, step: int, member: int, after: dict[str, Any]) -> dict[str, Any]:
    return {"event": event, "round": round_, "step": step, "member": member, "after": json.dumps(after)}


def _append(store: Store, folder: str, round_: int, table: pa.Table) -> None:
    store.write_table(f"{folder}/part-{round_:06d}.parquet", table)
