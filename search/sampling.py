"""A member's batches as its sampling policy lets them through: policy and trainable put together.

A pool of rows is read in its endless order. When its next epoch begins, the policy plans it from the losses
that the member's own training steps have given; rows that are dropped are passed over. Each pool (a group of
text, or the arrays of a class of one's own) has epochs of its own: a mixture reads groups at different rates.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.streams import RowOrder
from policies.sampling.interface import Context, Plan, Rule
from policies.sampling.losses import LastLosses
from trainables.arrays import map_nest
from trainables.batches import Shuffled
from trainables.member import Batches, State

AHEAD = 4  # times as many rows as are wanted are looked at together


class Stream(Protocol):
    """Rows in an endless order, of which `order` says which stored row lies where."""

    @property
    def order(self) -> RowOrder: ...

    def take(self, cursor: int, count: int) -> Any: ...


class Clock:
    """How far the member's training has come, shared by its pools."""

    def __init__(self, batches: float):
        self.batches, self.drawn = batches, 0


class KeptRows:
    """The rows of one pool that a member trains on; stands in a stream's place.

    What is decided for the running epoch, the losses and the position are the member's state: they move with
    its weights to a clone, so its view of the rows is that of the weights that it has.
    """

    def __init__(self, stream: Stream, rule: Rule, seed: int, clock: Clock, epochs: float | None = None):
        self.stream, self.rule, self.seed, self.clock, self.epochs = stream, rule, seed, clock, epochs
        self.rows = stream.order.rows
        self.last = LastLosses(self.rows if "loss" in rule.spec.needs else 0)
        self.position, self.taken = 0, 0  # of the stream, and rows that were kept of it
        self.epoch = -1
        self.keep = np.ones(self.rows, bool)
        self.weight = np.ones(self.rows, np.float32)
        self.drawn: list[tuple[KeptRows, NDArray[np.int64]]] = []  # shared with the other pools of the batch

    def take(self, cursor: int, count: int) -> Any:
        """Return the next kept rows, wherever the caller's cursor is: the pool knows its own place."""
        parts: list[Any] = []
        ids: list[NDArray[np.int64]] = []
        while count or not parts:
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
        columns = {"loss": self.last.loss}
        ids = np.arange(self.rows)
        context = Context(epoch, self.expected(epoch), self.seed, self.rows)
        decision = self.plan(ids, columns, context).decide(ids, columns)
        self.epoch, self.keep, self.weight = epoch, decision.copies > 0, decision.weight
        if not self.keep.any():  # of a few rows none may be drawn
            self.keep[:] = True

    def plan(self, ids: NDArray[np.int64], columns: Mapping[str, Any], context: Context) -> Plan:
        return self.rule.plan(ids, columns, context)

    def observe(self, ids: NDArray[np.int64], losses: NDArray[np.floating], steps: NDArray[np.int64]) -> None:
        if len(self.last.loss):
            self.last.observe(ids, losses, steps, np.zeros_like(steps))

    def expected(self, epoch: int) -> float:
        """Return how many epochs there will be, by what the last one kept and how fast this pool is read."""
        if self.epochs is not None:
            return self.epochs
        if not self.taken:
            return np.inf
        rate = self.taken / self.clock.drawn  # rows a batch
        end = (self.clock.drawn + self.keep.sum() / rate) / self.clock.batches  # of this epoch
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
            "last": self.last.state(),
        }

    def load(self, state: State) -> None:
        self.position, self.taken, self.epoch = (int(state[name]) for name in ("position", "taken", "epoch"))
        self.keep, self.weight = np.array(state["keep"]), np.array(state["weight"])
        self.last.restore(state["last"])


class SampledBatches:
    """Batches of kept rows with their weights; the losses of their training come back here."""

    def __init__(self, batches: Batches, pools: Sequence[KeptRows], rule: Rule, clock: Clock):
        self.batches, self.pools, self.rule, self.clock = batches, list(pools), rule, clock
        self.drawn: list[tuple[KeptRows, NDArray[np.int64]]] = []
        for pool in self.pools:
            pool.drawn = self.drawn
        self.waiting: list[list[tuple[KeptRows, NDArray[np.int64]]]] = []  # batches whose losses are to come
        self.weigher = rule.plan(np.arange(0), {"loss": np.empty(0)}, Context(0, 1, 0, 0))

    def next(self) -> dict[str, Any]:
        self.drawn.clear()
        rows = self.batches.next()
        self.waiting.append(list(self.drawn))
        self.clock.drawn += 1
        return {"rows": rows, "weights": np.concatenate([pool.weight[ids] for pool, ids in self.drawn])}

    def weigh(self, losses: Any, weights: Any) -> Any:
        return self.weigher.weigh({"loss": losses, "weight": weights})

    def observe(self, losses: NDArray[np.floating]) -> None:
        first = self.clock.drawn - len(self.waiting)
        found: dict[KeptRows, list[tuple[NDArray[Any], ...]]] = {}
        for step, (drawn, by_row) in enumerate(zip(self.waiting, losses, strict=True), start=first):
            start = 0
            for pool, ids in drawn:
                part = by_row[start : start + len(ids)]
                found.setdefault(pool, []).append((ids, part, np.full(len(ids), step)))
                start += len(ids)
        for pool, parts in found.items():
            pool.observe(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        self.waiting.clear()

    @property
    def kept(self) -> float:
        """The share of all rows that the running epochs keep."""
        return sum(int(pool.keep.sum()) for pool in self.pools) / sum(pool.rows for pool in self.pools)

    def state(self) -> State:
        pools = [pool.state() for pool in self.pools]
        return {"batches": self.batches.state(), "drawn": self.clock.drawn, "pools": pools}

    def load(self, state: State) -> None:
        self.batches.load(state["batches"])
        self.clock.drawn = int(state["drawn"])
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
    clock = Clock(batches)
    pool = KeptRows(ArrayRows(shuffled), rule, seed, clock, epochs)
    return SampledBatches(WholePool(pool, shuffled.batch), [pool], rule, clock)
