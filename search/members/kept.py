"""One pool of rows behind a sampling policy: members read it in place of a stream."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.row_order import RowOrder
from shoal.policies.sampling.interface import Context, Ids, Rule, needs_losses
from shoal.search.members.views import OwnView, Pace, View
from shoal.trainables.arrays import map_nest
from shoal.trainables.member import SavedState

ROWS_PER_WANTED = 4  # so many rows are looked at for each row that is wanted
FURTHEST = 4096  # most rows looked at together, since a window must hold all of them


class Stream(Protocol):
    """Rows in an endless order; `order` says which stored row lies at each place."""

    @property
    def order(self) -> RowOrder: ...

    def place(self, reader: object, cursor: int) -> int: ...

    def take(self, cursor: int, count: int) -> Any: ...

    def pick(self, rows: Ids) -> Any:
        """Return stored rows by their numbers; only streams that hold all rows can."""


class KeptRows:
    """The rows of one pool that a member trains on; stands in a stream's place.

    The decisions for the running epoch, the position and the losses of an own view are part of the member's
    state: they move with its weights to a clone. Decisions need only the rows' numbers, which the stream's
    order gives, so the stream may be a window. `skipped` counts the rows that a window left behind unread.
    """

    def __init__(
        self,
        stream: Stream,
        rule: Rule,
        seed: int,
        pace: Pace,
        epochs: float | None = None,
        view: View | None = None,
        score: NDArray[np.floating] | None = None,  # (rows,)
    ):
        self.stream, self.rule, self.pace, self.epochs = stream, rule, pace, epochs
        self.seed = seed * 2**32 + stream.order.key[1]  # each group has random numbers of its own
        self.rows = stream.order.rows
        self.view = view or OwnView(self.rows if needs_losses(rule) else 0)
        self.score = np.full(self.rows, np.nan, np.float32) if score is None else score
        self.position, self.taken, self.skipped = 0, 0, 0  # position in the stream, rows kept, rows skipped
        self.epoch, self.changed = -1, False  # changed: the epoch is planned anew by another rule
        self.keep = np.ones(self.rows, bool)
        self.weight = np.ones(self.rows, np.float32)
        self.age = np.zeros(self.rows, np.int16)
        self.sequence = np.empty(0, np.int64)  # the epoch's rows, if the policy orders them; else empty
        self.stream.place(self, self.position)
        self.drawn: list[tuple[KeptRows, Ids]] = []  # shared with the other pools of the batch

    def take(self, cursor: int, count: int) -> Any:
        """Return the next kept rows, wherever the caller's cursor is: the pool knows its own place."""
        parts: list[Any] = []
        ids: list[Ids] = []
        while count or not parts:
            self.stand()
            self.begin()
            ahead = min(self.rows - self.position % self.rows, max(ROWS_PER_WANTED * count, 1), FURTHEST)
            places = self.places(ahead)
            kept = np.flatnonzero(self.keep[places])[:count]
            span = int(kept[-1]) + 1 if len(kept) else 0
            if len(kept) or not count:
                parts.append(self.read(places, kept, span))
                ids.append(places[kept])
            self.position += span if len(kept) == count else ahead
            count -= len(kept)
        found = np.concatenate(ids)
        self.taken += len(found)
        self.drawn.append((self, found))
        return map_nest(lambda *arrays: np.concatenate(arrays), *parts)

    def stand(self) -> None:
        """Go on from where the stream still has rows: a window may have left the position behind."""
        position = self.stream.place(self, self.position)
        self.skipped += position - self.position
        self.position = position

    def places(self, count: int) -> Ids:
        """Return the stored rows of the next positions of the running epoch."""
        if not len(self.sequence):
            return self.stream.order.places(self.position, count)
        start = self.position % self.rows
        return self.sequence[start : start + count]

    def read(self, places: Ids, kept: Ids, span: int) -> Any:
        """Return the kept rows among these places; all of them are in the stream's next `span` rows."""
        if len(self.sequence):
            return self.stream.pick(places[kept])
        return map_nest(lambda array: array[kept], self.stream.take(self.position, span))

    def begin(self) -> None:
        """Plan the epoch of the position, unless it is planned already."""
        epoch = self.position // self.rows
        if epoch == self.epoch and not self.changed:
            return
        begun, self.changed = epoch == self.epoch, False
        losses = self.view.losses() if needs_losses(self.rule) else np.full(self.rows, np.nan, np.float32)
        columns: dict[str, NDArray[Any]] = {"loss": losses, "age": self.age, "score": self.score}
        ids = np.arange(self.rows)
        context = Context(epoch, self.expected(epoch), self.seed, self.rows)
        decision = self.rule.plan(ids, columns, context).decide(ids, columns)
        self.epoch, self.keep, self.weight = epoch, decision.copies > 0, decision.weight
        if not self.keep.any():  # with few rows the draw may keep none: then keep all
            self.keep[:] = True
        if not begun:
            self.age = np.where(self.keep, 0, self.age + 1).astype(np.int16)
        if decision.rank is not None:
            self.sequence = arranged(self.stream.order.places(epoch * self.rows, self.rows), decision.rank)

    def follow(self, rule: Rule, anew: bool) -> None:
        """Go by another rule of the same kind; `anew` says that the running epoch is planned by it too."""
        self.rule, self.changed = rule, anew

    def observe(self, ids: Ids, losses: NDArray[np.floating], steps: Ids) -> None:
        if needs_losses(self.rule):
            self.view.observe(ids, losses, steps)

    def expected(self, epoch: int) -> float:
        """Estimate the number of epochs by how many rows the last one kept and how fast the pool is read."""
        if self.epochs is not None:
            return self.epochs
        if not self.taken:
            return np.inf
        rate = self.taken / self.pace.drawn  # rows of each batch
        end = (
            self.pace.drawn + self.keep.sum() / rate
        ) / self.pace.batches  # end of this epoch as a share of the training
        return float((epoch + 1) / min(end, 1.0))

    def left(self) -> int:
        """Return how many rows the running epoch has left; as it begins, this is its length."""
        self.begin()
        start = self.position % self.rows
        places = self.places(self.rows - start)
        return int(self.keep[places].sum())

    def state(self) -> SavedState:
        return {
            "position": self.position,
            "taken": self.taken,
            "skipped": self.skipped,
            "epoch": self.epoch,
            "keep": self.keep.copy(),
            "weight": self.weight.copy(),
            "age": self.age.copy(),
            "sequence": self.sequence.copy(),
            "view": self.view.state(),
        }

    def load(self, state: SavedState) -> None:
        self.position, self.taken = int(state["position"]), int(state["taken"])
        self.skipped, self.epoch = int(state["skipped"]), int(state["epoch"])
        self.keep, self.weight = np.array(state["keep"]), np.array(state["weight"])
        self.age, self.sequence = np.array(state["age"]), np.array(state["sequence"])
        self.view.load(state["view"])
        self.stream.place(self, self.position)  # a window must know the position before it drops rows


def arranged(places: Ids, rank: NDArray[np.float64]) -> Ids:
    """Return rows in ascending rank; ties keep the order of `places`, and rows of rank NaN keep their place.

    `places` holds each row once; `rank` is indexed by row.
    """
    found, known = places.copy(), ~np.isnan(rank[places])
    ranked = places[known]
    found[known] = ranked[np.argsort(rank[ranked], kind="stable")]
    return found
