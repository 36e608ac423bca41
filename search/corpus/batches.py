"""A member's batches: rows of every group, cut to its proportions."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from shoal.cluster.rows import Rows, by_field
from shoal.cluster.streams import RowStream, WindowStream
from shoal.policies.arrays import Vector
from shoal.policies.finite_groups import share_out
from shoal.policies.mixing import cut_batch
from shoal.search.corpus.packing import PART_ROWS, Split
from shoal.search.errors import Exhausted
from shoal.search.messages import Reading
from shoal.trainables.forgetting import FORGET
from shoal.trainables.member import copies


class RowSource(Protocol):
    def take(self, cursor: int, count: int) -> Rows: ...


class MixedBatches:
    """Rows taken from each group's shared stream at this member's own cursors.

    New proportions hold from the next batch on; the cursors and the debt of rounding move with the
    member's state, so a clone goes on where its donor is. `skipped` counts the rows of each group that a
    window had left behind before this member, or the ones it is a clone of, came to them.
    """

    def __init__(
        self,
        streams: Mapping[str, RowSource],
        proportions: Vector,
        batch: int,
        limits: Sequence[int] | None = None,  # most rows of each group, over all epochs
        stop: bool = False,  # stop when one group reaches its limit; otherwise the others go on
        forgotten: Collection[str] = (),  # groups whose rows are to be forgotten: batches say which rows are
    ):
        self.groups, self.streams, self.batch = list(streams), list(streams.values()), batch
        self.windows = {
            place: stream for place, stream in enumerate(self.streams) if isinstance(stream, WindowStream)
        }
        self.limits, self.stop = limits, stop
        self.forgotten = np.array([float(group in forgotten) for group in self.groups], np.float32)
        self.proportions = proportions
        self.cursors = [0] * len(self.streams)
        self.skipped = [0] * len(self.streams)
        self.debt = [0.0] * len(self.streams)
        self._stand()

    @property
    def proportions(self) -> Vector:
        return self._proportions

    @proportions.setter
    def proportions(self, proportions: Vector) -> None:
        self._proportions = np.array(proportions, dtype=np.float64)
        self._proportions.flags.writeable = False  # a change in place would leave _shares and _due as they were
        self._shares = self._proportions.tolist()
        self._due = (self._proportions * self.batch).tolist()

    def next(self) -> Any:
        """Return a batch: `(batch, sequence_length)` tokens, or arrays of a batch's records by their fields.

        Raises Exhausted where the groups have no batch left.
        """
        return self.take(self._next_counts())

    def take(self, counts: Sequence[int]) -> Any:
        """Return the next `counts` rows of the groups, as `next` does; the proportions play no part.

        Where rows are to be forgotten, a batch is arrays by field, and `forget`, `(batch,)`, is 1 for those.
        """
        for place, window in self.windows.items():
            cursor = window.place(self, self.cursors[place])
            self.skipped[place] += cursor - self.cursors[place]
            self.cursors[place] = cursor
        parts = []
        for place, count in enumerate(counts):
            if count:
                parts.append(self.streams[place].take(self.cursors[place], count))
                self.cursors[place] += count
        rows: Any = by_field(np.concatenate(parts))
        if not self.forgotten.any():
            return rows
        fields = rows if isinstance(rows, Mapping) else {"tokens": rows}
        return {**fields, FORGET: np.repeat(self.forgotten, counts)}

    def alike(self, other: object) -> bool:
        """Say whether the other's batches are the same ones from here on, of the same streams.

        Members that read through windows never share batches: a window must know where each of them stands.
        """
        if self is other or type(self) is not MixedBatches or type(other) is not MixedBatches:
            return False
        places = [
            (
                each.batch,
                each.limits,
                each.stop,
                each._shares,
                each.cursors,
                each.debt,
                list(map(id, each.streams)),
            )
            for each in (self, other)
        ]
        return not self.windows and places[0] == places[1]

    def read_through(self, pools: Sequence[Any]) -> None:
        """Take rows from these pools, one for each group, in place of the streams.

        Each pool tells a window where it stands; these batches do so no more.
        """
        for window in self.windows.values():
            window.leave(self)
        self.streams, self.windows = list(pools), {}

    def reading(self) -> Reading:
        """Return how often each group was gone through, and how many rows of it were left out by a window."""
        known = list(enumerate(zip(self.groups, self.streams, strict=True)))
        return Reading(
            epochs={
                group: self.cursors[place] / stream.order.rows
                for place, (group, stream) in known
                if isinstance(stream, RowStream)
            },
            skipped={group: float(self.skipped[place]) for place, (group, _) in known if place in self.windows},
        )

    @copies
    def state(self) -> dict[str, Any]:
        return {
            "cursors": list(self.cursors),
            "skipped": list(self.skipped),
            "debt": np.array(self.debt),
            "proportions": self.proportions.copy(),
        }

    @copies
    def load(self, state: dict[str, Any]) -> None:
        self.cursors = list(state["cursors"])
        self.skipped = list(state["skipped"])
        self.debt = np.asarray(state["debt"]).tolist()
        self.proportions = state["proportions"]
        self._stand()

    def left(self, most: int) -> int:
        """Return how many of the next `most` batches there are rows for, if no window leaves rows out."""
        cursors, debt = list(self.cursors), self.debt
        if self._enough(cursors, most):
            return most
        for batches in range(most):
            if (found := self._counts(cursors, debt)) is None:
                return batches
            cursors, debt = [cursor + count for cursor, count in zip(cursors, found[0], strict=True)], found[1]
        return most

    def read_out(self) -> list[str]:
        """Return the groups that have been read to the end."""
        known = zip(self.groups, self._left(self.cursors), self._shares, strict=True)
        return [name for name, rows, share in known if share and not rows] or self.groups

    def _next_counts(self) -> list[int]:
        if (found := self._counts(self.cursors, self.debt)) is None:
            raise Exhausted(
                f"data.exhausted: after data.epochs passes there is no batch of {self.batch} rows left "
                f"({', '.join(self.read_out())} read to the end). Train for fewer steps, give more text, "
                f"or let groups repeat."
            )
        counts, self.debt = found
        return counts

    def _counts(self, cursors: Sequence[int], debt: Sequence[float]) -> tuple[list[int], list[float]] | None:
        """Return the rows of each group in the next batch and what is owed then; None if there is no batch."""
        shares = self._shares
        if self._enough(cursors, 1):
            due = [rows + owed for rows, owed in zip(self._due, debt, strict=True)]
            counts = cut_batch(shares, due, self.batch)
            return counts, [rows - count for rows, count in zip(due, counts, strict=True)]
        left = self._left(cursors)
        if self.stop and any(share and not rows for rows, share in zip(left, shares, strict=True)):
            return None
        return share_out(shares, self.batch, list(debt), left)

    def _enough(self, cursors: Sequence[int], batches: int) -> bool:
        """Say whether no group can come to its end within so many batches."""
        limits, rows = self.limits, batches * self.batch
        return limits is None or all(
            cursor + rows < limit for cursor, limit in zip(cursors, limits, strict=True)
        )

    def _left(self, cursors: Sequence[int]) -> list[int]:
        assert self.limits is not None, "rows without a limit do not end"
        return [max(limit - cursor, 0) for cursor, limit in zip(cursors, self.limits, strict=True)]

    def _stand(self) -> None:
        """Tell the windows where this member stands before anybody reads."""
        for place, window in self.windows.items():
            window.place(self, self.cursors[place])


def file_rows(split: Split) -> list[int]:
    """Return how many rows each file of a split holds."""
    if split.sizes is not None:
        return split.sizes
    full = len(split.files) - 1
    return [PART_ROWS] * full + [split.rows - full * PART_ROWS]
