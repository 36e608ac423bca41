"""The ledger: the last loss of every row of a pool. The rows are divided among actors, the shards.

Senders feed it without waiting. A shard that dies comes back from its last saved file with a new `birth`. Each
sender sees the new birth and sends again all that it has sent since that save. A `Book` gives the same result
whatever the order and the repetition of its records; so after a flush by all senders the ledger is as if no
shard had died. Until that flush a snapshot may lack records, and they are lost if their sender dies as well.
"""

import re
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from shoal.cluster.lease import StandingStore
from shoal.cluster.storage import TEMPORARY, Store

LEDGER_FOLDER = "ledger"
SAVED = re.compile(r"mark-\d{6,}-shard-\d{5,}\.parquet")
ROWS_A_SHARD = 10_000_000
ROWS_A_CALL = 10_000
FLIGHT = 16  # calls that one sender may have under way; at the bound it waits for the oldest
READ = ("loss",)  # the columns that snapshots keep

Column = NDArray[Any]


class Book(Protocol):
    """What a shard keeps of its rows `0 ... rows - 1`; `state` has one array `(rows,)` a column."""

    def observe(self, ids: Column, *columns: Column) -> None: ...

    def column(self, name: str) -> Column:
        """Return a copy of one of them."""

    def state(self) -> dict[str, Column]: ...

    def restore(self, state: dict[str, Column]) -> None: ...


class Shard:
    """An actor: the rows `place, place + shards, ...` of the pool."""

    def __init__(self, make: Callable[[int], Book], rows: int, uri: str, place: int, keep: int):
        self.book, self.store, self.place, self.keep = make(rows), StandingStore(uri), place, keep
        self.birth = uuid.uuid4().hex
        self.snapshots: dict[int, dict[str, Column]] = {}
        saved = self.saved()
        if not saved:
            self.snapshots[0] = self.snapshot()
        for name in saved:  # all of them, since readers may still want an older one
            self.book.restore(self.load(name))
            self.snapshots[mark_of(name)] = self.snapshot()

    def load(self, name: str) -> dict[str, Column]:
        table = self.store.read_table(f"{LEDGER_FOLDER}/{name}")
        rows = len(self.book.column(READ[0]))
        if len(table) != rows:
            raise ValueError(
                f"{LEDGER_FOLDER}/{name} must hold {rows} rows, but has {len(table)}: a ledger comes back for "
                f"as many broods, rows and shards as it was saved for."
            )
        return {column: table[column].to_numpy() for column in table.column_names}

    def snapshot(self) -> dict[str, Column]:
        return {name: self.book.column(name) for name in READ}

    def saved(self) -> list[str]:
        """Return the names of this shard's files, oldest first."""
        names = filter(SAVED.fullmatch, self.store.names(LEDGER_FOLDER))
        return [name for name in names if name.endswith(self.file())]

    def file(self) -> str:
        return f"shard-{self.place:05d}.parquet"

    def observe(self, ids: Column, *columns: Column) -> str:
        """Take records in; returns the shard's birth, another one after a death."""
        if len(ids):
            self.book.observe(ids, *columns)
        return self.birth

    def mark(self, mark: int, save: bool) -> None:
        """Keep a snapshot of what is known now, and save all of it if asked to."""
        self.snapshots[mark] = self.snapshot()
        for old in sorted(self.snapshots)[: -self.keep]:
            del self.snapshots[old]
        if save:
            name = f"{LEDGER_FOLDER}/mark-{mark:06d}-{self.file()}"
            self.store.write_table(name, pa.table(self.book.state()), compression="zstd", compression_level=1)
            for old_name in self.saved()[: -self.keep]:
                self.store.delete(f"{LEDGER_FOLDER}/{old_name}")

    def read(self, mark: int | None, column: str) -> Column:
        """Return a column as it was at the mark, or as it is."""
        return self.book.column(column) if mark is None else self.snapshots[mark][column]


class Ledger(NamedTuple):
    """The handles of all shards; pickles small, so it can be given to every sender and reader."""

    shards: list[Any]
    rows: int

    def mark(self, mark: int, save: bool = True) -> None:
        """Take a snapshot in all shards; what was flushed before is in it.

        One that is not saved is lost with its shard, and senders must go on keeping what they have sent.
        """
        ray.get([shard.mark.remote(mark, save) for shard in self.shards])

    def read(self, column: str, mark: int | None = None) -> Column:
        """Return one value a row, `(rows,)`."""
        parts = ray.get([shard.read.remote(mark, column) for shard in self.shards])
        found = np.empty(self.rows, parts[0].dtype)
        for place, part in enumerate(parts):
            found[place :: len(parts)] = part
        return found


def start_ledger(
    make: Callable[[int], Any], rows: int, uri: str, shards: int | None = None, keep: int = 2
) -> Ledger:
    """Start the shards of a pool, or bring them back from what is saved under the URI.

    `make(rows)` gives a shard's empty `Book`; mark 0 is a snapshot of it. A shard is of `ROWS_A_SHARD` rows by
    default; a saved ledger must be opened with as many shards as it had. The last `keep` snapshots can be read,
    and come back after a death if they were saved.
    """
    count = shards or -(-rows // ROWS_A_SHARD)
    # an actor that dies comes back, and calls that were under way are made again, as long as the run lives
    actor = ray.remote(Shard).options(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    sizes = [len(range(place, rows, count)) for place in range(count)]
    return Ledger([actor.remote(make, size, uri, place, keep) for place, size in enumerate(sizes)], rows)


def mark_of(name: str) -> int:
    return int(name.split("-")[1])


def saved(store: Store, mark: int) -> list[str]:
    """Return the names of all shards' files of a mark and before."""
    names = [name for name in store.names(LEDGER_FOLDER) if SAVED.fullmatch(name) and mark_of(name) <= mark]
    return [f"{LEDGER_FOLDER}/{name}" for name in names]


def forget_after(store: Store, mark: int) -> None:
    """Delete what was saved at later marks, and what a killed shard had not written to its end."""
    for name in store.names(LEDGER_FOLDER):
        written = TEMPORARY.fullmatch(name)
        if SAVED.fullmatch(written["name"] if written else name) and (written or mark_of(name) > mark):
            store.delete(f"{LEDGER_FOLDER}/{name}")


class Sender:
    """Feeds a ledger from one process; `send` returns at once unless too much is under way."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self.buffer: list[tuple[Column, ...]] = []
        self.buffered = 0
        self.flying: deque[tuple[int, Any]] = deque()
        self.births: dict[int, str] = {}
        self.mark = 0
        self.unsaved: list[list[tuple[Column, ...]]] = [[] for _ in ledger.shards]

    def send(self, ids: Column, *columns: Column) -> None:
        """Feed records: row ids, int64, and for each what the book observes."""
        self.buffer.append((ids, *columns))
        self.buffered += len(ids)
        if self.buffered >= ROWS_A_CALL * len(self.ledger.shards):
            self.dispatch()

    def flush(self) -> None:
        """Wait until all that was sent is in the ledger, also where a shard has died meanwhile."""
        self.dispatch()
        while self.flying:
            self.land()
        again = True
        while again:
            births = [shard.observe.remote(np.empty(0, np.int64)) for shard in self.ledger.shards]
            reborn = [self.repeat(place, birth) for place, birth in enumerate(ray.get(births))]
            again = any(reborn)
            while self.flying:
                self.land()

    def saved(self, mark: int) -> None:
        """Forget what was sent until now, since it is in the files of this mark; told again, do nothing."""
        if mark > self.mark:
            self.mark = mark
            self.unsaved = [[] for _ in self.ledger.shards]

    def dispatch(self) -> None:
        if not self.buffer:
            return
        records = [np.concatenate(parts) for parts in zip(*self.buffer, strict=True)]
        self.buffer, self.buffered = [], 0
        count = len(self.ledger.shards)
        for place in range(count):
            # with one shard there is nothing to choose, and an index would copy
            mine = [column[records[0] % count == place] for column in records] if count > 1 else records
            self.unsaved[place].append((mine[0] // count, *mine[1:]))
            self.call(place, self.unsaved[place][-1])

    def call(self, place: int, records: tuple[Column, ...]) -> None:
        while len(self.flying) >= FLIGHT:
            self.land()
        self.flying.append((place, self.ledger.shards[place].observe.remote(*records)))

    def land(self) -> None:
        place, reference = self.flying.popleft()
        self.repeat(place, ray.get(reference))

    def repeat(self, place: int, birth: str) -> bool:
        """Send again what a reborn shard may have lost; say whether there was need to."""
        known = self.births.setdefault(place, birth)
        self.births[place] = birth
        if known == birth:
            return False
        for records in self.unsaved[place]:
            self.flying.append((place, self.ledger.shards[place].observe.remote(*records)))
        return True
