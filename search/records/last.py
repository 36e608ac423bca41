"""Each member's row at the last checkpoint of a run, which may go on while it is read."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from shoal.cluster import checkpoints
from shoal.cluster.storage import BrokenFile, Store, reason
from shoal.policies.standings import rank
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.messages import Row
from shoal.search.records.tables import METRICS, row_of, rows_backwards

READS = 50  # how often a read is tried again while the run deletes older checkpoints
Answer = TypeVar("Answer")


def read_settled(read: Callable[[], Answer]) -> Answer:
    """Return what `read` reads of a run; if the run deletes the files meanwhile, read again."""
    for _ in range(READS):
        try:
            return read()
        except FileNotFoundError as error:
            gone = error
    raise InputError(f"{reason(gone)}: the run deletes its checkpoints faster than they are read; try again.")


def last_rows(run: Run, store: Store) -> tuple[dict[int, Row], int]:
    """Return each member's row at its last checkpoint, and the number of the best one."""
    return read_settled(lambda: read_last_rows(run, store))


def read_last_rows(run: Run, store: Store, last: int | None = None) -> tuple[dict[int, Row], int]:
    if last is None:
        last = checkpoints.latest(store, range(run.population.members), run.shares)
    saved = [] if last is None else checkpoints.load_decisions(store, last)["saved"]
    if not any(saved):
        raise InputError(f"{run.directory} has no checkpoint yet: run or resume it first.")
    # only the newest parts are read: a run may delete the checkpoint while all of them are
    found = rows_at(store, saved, rows_backwards(store, METRICS))
    return found, rank({member: row.score for member, row in found.items()})[0]


def rows_at(store: Store, saved: Sequence[int], rows: Iterable[dict[str, Any]]) -> dict[int, Row]:
    """Return each member's row of the round in which it was saved; a member without one never was."""
    found: dict[int, Row] = {}
    wanted = sum(round_ > 0 for round_ in saved)
    for row in rows:
        if saved[row["member"]] == row["round"]:
            found[row["member"]] = row_of(row)
        if len(found) == wanted:
            break
    missing = [(member, round_) for member, round_ in enumerate(saved) if round_ and member not in found]
    if missing:
        raise BrokenFile(store.path(METRICS), "it has no row of member {} in round {}".format(*missing[0]))
    return found


def member_of(run: Run, store: Store, member: int | None) -> Row:
    """Return the last row of a member, the best one by default; raises InputError if there is none."""
    rows, best = last_rows(run, store)
    chosen = best if member is None else member
    if chosen not in rows:
        raise InputError(f"member must be one of {', '.join(map(str, sorted(rows)))}, got {chosen}.")
    return rows[chosen]
