"""A member's batches as its sampling policy lets them through: policy and trainable put together.

A pool of rows is read in its endless order. When its next epoch begins, the policy plans it from the losses
that the member's own training steps have given; rows that are dropped are passed over. Each pool (a group of
text, or the arrays of a class of one's own) has epochs of its own: a mixture reads groups at different rates.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.order import RowOrder
from policies.sampling.interface import Context, Ids, Rule, needs_losses
from search.corpus.batches import MixedBatches
from search.mixed import VisitBatches
from search.views import BroodView, OwnView, Pace, Shared, View
from trainables.arrays import map_nest
from trainables.batches import Shuffled
from trainables.member import Batches, State

AHEAD = 4  # times as many rows as are wanted are looked at together


class Stream(Protocol):
    """Rows in an endless order, of which `order` says which stored row lies where."""

    @property
    def order(self) -> RowOrder: ...

    def place(self, reader: object, cursor: int) -> int: ...

    def take(self, cursor: int, count: int) -> Any: ...


class KeptRows:
    """The rows of one pool that a member trains on; stands in a stream's place.

    What is decided for the running epoch and the position are the member's state, as are the losses of a view
    of its own: they move with its weights to a clone.
    """

    def __init__(
        self,
        stream: Stream,
        rule: Rule,
        seed: int,
        pace: Pace,
        epochs: float | None = None,
        view: View | None = None,
    ):
        self.stream, self.rule, self.pace, self.epochs = stream, rule, pace, epochs
        self.seed = seed * 2**32 + stream.order.key[1]  # each group throws coins of its own
        self.rows = stream.order.rows
        self.view = view or OwnView(self.rows if needs_losses(rule) else 0)
        self.position, self.taken = 0, 0  # of the stream, and rows that were kept of it
        self.epoch = -1
        self.keep = np.ones(self.rows, bool)
        self.weight = np.ones(self.rows, np.float32)
        self.drawn: list[tuple[KeptRows, Ids]] = []  # shared with the other pools of the batch

    def take(self, cursor: int, count: int) -> Any:
        """Return the next kept rows, wherever the caller's cursor is: the pool knows its own place."""
        parts: list[Any] = []
        ids: list[Ids] = []
        while count or not parts:
            self.position = self.stream.place(self, self.position)  # a window may have left it behind
            self.begin()
            ahead = min(self.rows - self.position % self.rows, max(AHEAD * count, 1))
            places = self.stream.order.places(self.position, ahead)
            kept = np.flatnonzero(self.keep[places])[:count]
            span = int(kept[-1]) + 1 if len(kept) else 0
            rows = self.stream.take(self.position, span)
            parts.append(map_nest(lambda array, kept=kept: array[kept], rows))
            ids.append(places[kept])
            self.position += span if len(kept) == count else ahead
            count -= len(kept)
        found = np.concatenate(ids)
        self.taken += len(found)
        self.drawn.append((self, found))
        return map_nest(lambda *arrays: np.concatenate(arrays), *parts)

    def begin(self) -> None:
        """Plan the epoch of the position, if it has not been."""
        epoch = self.position // self.rows
        if epoch == self.epoch:
            return
        columns = {"loss": self.view.losses() if needs_losses(self.rule) else np.full(self.rows, np.nan)}
        ids = np.arange(self.rows)
        context = Context(epoch, self.expected(epoch), self.seed, self.rows)
        decision = self.rule.plan(ids, columns, context).decide(ids, columns)
        self.epoch, self.keep, self.weight = epoch, decision.copies > 0, decision.weight
        if not self.keep.any():  # of a few rows none may be drawn
            self.keep[:] = True

    def observe(self, ids: Ids, losses: NDArray[np.floating], steps: Ids) -> None:
        if needs_losses(self.rule):
            self.view.observe(ids, losses, steps)

    def expected(self, epoch: int) -> float:
        """Return how many epochs there will be, by what the last one kept and how fast this pool is read."""
        if self.epochs is not None:
            return self.epochs
        if not self.taken:
            return np.inf
        rate = self.taken / self.pace.drawn  # rows a batch
        end = (self.pace.drawn + self.keep.sum() / rate) / self.pace.batches  # of this epoch
        return float((epoch + 1) / min(end, 1.0))

    def left(self) -> int:
        """Return how many rows the running epoch has left, and so its length as it begins."""
        self.begin()
        start = self.position % self.rows
        places = self.stream.order.places(self.position, self.rows - start)
        return int(self.keep[places].sum())

    def state(self) -> State:
        return {
            "position": self.position,
            "taken": self.taken,
            "epoch": self.epoch,
            "keep": self.keep.copy(),
            "weight": self.weight.copy(),
            "view": self.view.state(),
        }

    def load(self, state: State) -> None:
        self.position, self.taken, self.epoch = (int(state[name]) for name in ("position", "taken", "epoch"))
        self.keep, self.weight = np.array(state["keep"]), np.array(state["weight"])
        self.view.load(state["view"])


class SampledBatches:
    """Batches of kept rows with their weights; the losses of their training come back here.

    Where the batches below have weights of their own, such as a mixing policy's, a row has the product.
    """

    def __init__(self, batches: Batches, pools: Sequence[KeptRows], rule: Rule, pace: Pace):
        self.batches, self.pools, self.rule, self.pace = batches, list(pools), rule, pace
        self.drawn: list[tuple[KeptRows, Ids]] = []
        for pool in self.pools:
            pool.drawn = self.drawn
        self.waiting: list[list[tuple[KeptRows, Ids]]] = []  # batches whose losses are to come
        self.weighed: Any = batches if hasattr(batches, "weigh") else None
        self.weigher = rule.plan(np.arange(0), {"loss": np.empty(0)}, Context(0, 1, 0, 0))

    def next(self) -> dict[str, Any]:
        self.drawn.clear()
        below = self.batches.next()
        self.waiting.append(list(self.drawn))
        self.pace.drawn += 1
        weights = np.concatenate([pool.weight[ids] for pool, ids in self.drawn])
        if self.weighed is None:
            return {"rows": below, "weights": weights}
        return {"rows": below["rows"], "weights": {"kept": weights, "below": below["weights"]}}

    def weigh(self, losses: Any, weights: Any) -> Any:
        if self.weighed is None:
            return self.weigher.weigh({"loss": losses, "weight": weights})
        kept = self.weigher.weigh({"loss": losses, "weight": weights["kept"]})
        # both sum to 1 over a batch of plain rows
        return kept * self.weighed.weigh(losses, weights["below"]) * losses.shape[-1]

    def observe(self, losses: NDArray[np.floating]) -> None:
        if self.weighed is not None:
            self.weighed.observe(losses)
        first = self.pace.drawn - len(self.waiting)
        found: dict[KeptRows, list[tuple[NDArray[Any], ...]]] = {}
        for step, (drawn, by_row) in enumerate(zip(self.waiting, losses, strict=True), start=first):
            start = 0
            for pool, ids in drawn:
                part = by_row[start : start + len(ids)]
                found.setdefault(pool, []).append((ids, part, np.full(len(ids), step)))
                start += len(ids)
        for pool, parts in found.items():
            pool.observe(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        for pool in self.pools:
            pool.view.flush()
        self.waiting.clear()

    @property
    def kept(self) -> float:
        """The share of all rows that the running epochs keep."""
        return sum(int(pool.keep.sum()) for pool in self.pools) / sum(pool.rows for pool in self.pools)

    def state(self) -> State:
        pools = [pool.state() for pool in self.pools]
        return {"batches": self.batches.state(), "drawn": self.pace.drawn, "pools": pools}

    def load(self, state: State) -> None:
        self.batches.load(state["batches"])
        self.pace.drawn = int(state["drawn"])
        self.waiting.clear()
        for pool, own in zip(self.pools, state["pools"], strict=True):
            pool.load(own)


class ArrayRows:
    """Arrays in memory as a stream of rows."""

    def __init__(self, shuffled: Shuffled):
        self.arrays, self.order = shuffled.arrays, RowOrder("rows", [shuffled.rows], shuffled.seed)

    def take(self, cursor: int, count: int) -> Any:
        places = self.order.places(cursor, count)
        return map_nest(lambda array: array[places], self.arrays)

    def place(self, reader: object, cursor: int) -> int:
        return cursor


class WholePool:
    """Batches that a single pool fills."""

    def __init__(self, pool: KeptRows, batch: int):
        self.pool, self.batch = pool, batch

    def next(self) -> Any:
        return self.pool.take(self.pool.taken, self.batch)

    def state(self) -> State:
        return {}

    def load(self, state: State) -> None:
        pass


def sample_arrays(
    shuffled: Shuffled, rule: Rule, seed: int, batches: float, epochs: float | None = None
) -> SampledBatches:
    """Return the rows of `Shuffled` batches under a policy, for `batches` steps or, if given, for `epochs`."""
    pace = Pace(batches)
    pool = KeptRows(ArrayRows(shuffled), rule, seed, pace, epochs)
    return SampledBatches(WholePool(pool, shuffled.batch), [pool], rule, pace)


def sample_groups(
    mixed: MixedBatches, rule: Rule, seed: int, batches: float, member: int = 0, shared: Shared | None = None
) -> SampledBatches:
    """Return the batches of a mixture with each group's rows under a policy."""
    assert not mixed.windows, "a policy chooses among all rows of a group"
    pace = Pace(batches)
    pools: list[KeptRows] = []
    first = shared.first if shared else 0
    streams: list[Any] = mixed.streams
    for stream in streams:
        view = BroodView(shared, first, stream.order.rows, member, pace) if shared else None
        pools.append(KeptRows(stream, rule, seed, pace, view=view))
        first += stream.order.rows
    mixed.streams, mixed.windows = list(pools), {}  # a pool stands in its window itself
    return SampledBatches(mixed, pools, rule, pace)


def sample(
    member: Any, rule: Rule, seed: int, batches: float, number: int, shared: Shared | None = None
) -> None:
    """Put a policy between a new member and its rows; raises ValueError where it cannot come between them."""
    rows = getattr(member, "batches", None)
    if isinstance(rows, VisitBatches):
        below = sample_groups(rows.mixed, rule, seed, batches, number, shared)
        member.batches = SampledBatches(rows, below.pools, rule, below.pace)
    elif isinstance(rows, MixedBatches):
        member.batches = sample_groups(rows, rule, seed, batches, number, shared)
    elif isinstance(rows, Shuffled):
        member.batches = sample_arrays(rows, rule, seed, batches)
    else:
        raise ValueError(
            f"sampling: the batches of {type(member).__name__} must be `Shuffled`, got {type(rows).__name__}."
        )
