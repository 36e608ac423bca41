"""A member's batches behind its sampling policy: here policy and trainable come together.

A pool of rows is read in its endless order. When its next epoch begins, the policy plans it from the losses
that the member's own training steps have given; rows that are dropped are passed over. Each pool (a group of
text, or the arrays of a class of one's own) has epochs of its own: a mixture reads groups at different rates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.row_order import RowOrder
from shoal.cluster.streams import WindowStream
from shoal.policies.sampling.interface import Context, Ids, Rule
from shoal.search.corpus.batches import MixedBatches
from shoal.search.members.kept import KeptRows
from shoal.search.members.mixed import VisitBatches
from shoal.search.members.views import BroodView, Pace, Shared
from shoal.search.messages import Reading
from shoal.trainables.arrays import map_nest
from shoal.trainables.batches import Shuffled
from shoal.trainables.member import Batches, SavedState, copies


class SampledBatches:
    """Batches of kept rows with their weights; `observe` gets the losses of these rows.

    If the batches below have weights too, such as a mixing policy's, a row's weight is the product.
    """

    def __init__(
        self, batches: Batches, pools: Sequence[KeptRows], rule: Rule, pace: Pace, groups: Sequence[str] = ()
    ):
        self.batches, self.pools, self.rule, self.pace = batches, list(pools), rule, pace
        self.groups = groups  # names of the pools, if they are a corpus's groups
        self.drawn: list[tuple[KeptRows, Ids]] = []
        for pool in self.pools:
            pool.drawn = self.drawn
        self.waiting: list[list[tuple[KeptRows, Ids]]] = []  # batches whose losses have not arrived yet
        # the member's hyperparameters under `sampling`: as they are now, and as they were at the last batch
        self.wanted: Callable[[], Mapping[str, Any]] = dict
        self.heeded: dict[str, Any] = {}
        self.weighed: Any = batches if hasattr(batches, "weigh") else None
        nothing = dict.fromkeys(("loss", "age", "score"), np.empty(0))
        self.weigher = rule.plan(np.arange(0), nothing, Context(0, 1, 0, 0))

    def next(self) -> dict[str, Any]:
        if (wanted := dict(self.wanted())) != self.heeded:
            self.heed(wanted, anew=True)
        self.drawn.clear()
        below = self.batches.next()
        self.waiting.append(list(self.drawn))
        self.pace.drawn += 1
        kept = np.concatenate([pool.weight[ids] for pool, ids in self.drawn])
        weights = {"kept": kept, "step": np.array(self.pace.drawn - 1)}
        if self.weighed is None:
            return {"rows": below, "weights": weights}
        return {"rows": below["rows"], "weights": weights | {"below": below["weights"]}}

    def heed(self, wanted: dict[str, Any], anew: bool) -> None:
        """Go by these numbers of the rule; with `anew` in the running epochs too."""
        rule: Any = self.rule
        for pool in self.pools:
            pool.follow(replace(rule, **wanted), anew)
        self.heeded = wanted

    def weigh(self, losses: Any, weights: Any) -> Any:
        kept = self.weigher.weigh({"loss": losses, "weight": weights["kept"], "step": weights["step"]})
        if self.weighed is None:
            return kept
        # each weight is about 1 / rows, so the product is multiplied by the number of rows
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

    def reading(self) -> Reading:
        """Return how far each group was read, and the share of its rows that the policy keeps."""
        known = list(zip(self.groups, self.pools, strict=False))
        skipped = {group: float(pool.skipped) for group, pool in known if isinstance(pool.stream, WindowStream)}
        return Reading({group: pool.position / pool.rows for group, pool in known}, skipped, self.kept)

    @copies
    def state(self) -> SavedState:
        pools = [pool.state() for pool in self.pools]
        found = {"batches": self.batches.state(), "drawn": self.pace.drawn, "pools": pools}
        return found | ({"heeded": dict(self.heeded)} if self.heeded else {})

    @copies
    def load(self, state: SavedState) -> None:
        self.batches.load(state["batches"])
        self.pace.drawn = int(state["drawn"])
        self.waiting.clear()
        for pool, own in zip(self.pools, state["pools"], strict=True):
            pool.load(own)
        # the loaded epochs are planned by the donor's numbers; the next batch may bring others
        self.heed(dict(state.get("heeded", {})), anew=False)


class ArrayRows:
    """Arrays in memory as a stream of rows."""

    def __init__(self, shuffled: Shuffled):
        self.arrays, self.order = shuffled.arrays, RowOrder("rows", [shuffled.rows], shuffled.seed)

    def take(self, cursor: int, count: int) -> Any:
        places = self.order.places(cursor, count)
        return map_nest(lambda array: array[places], self.arrays)

    def pick(self, rows: Ids) -> Any:
        return map_nest(lambda array: array[rows], self.arrays)

    def place(self, reader: object, cursor: int) -> int:
        return cursor


class WholePool:
    """Batches that a single pool fills."""

    def __init__(self, pool: KeptRows, batch: int):
        self.pool, self.batch = pool, batch

    def next(self) -> Any:
        return self.pool.take(self.pool.taken, self.batch)

    def state(self) -> SavedState:
        return {}

    def load(self, state: SavedState) -> None:
        pass


def sample_arrays(
    shuffled: Shuffled, rule: Rule, seed: int, batches: float, epochs: float | None = None
) -> SampledBatches:
    """Return the rows of `Shuffled` batches under a policy, for `batches` steps or, if given, for `epochs`."""
    pace = Pace(batches)
    pool = KeptRows(ArrayRows(shuffled), rule, seed, pace, epochs)
    return SampledBatches(WholePool(pool, shuffled.batch), [pool], rule, pace)


def sample_groups(
    mixed: MixedBatches,
    rule: Rule,
    seed: int,
    batches: float,
    member: int = 0,
    shared: Shared | None = None,
    scores: Mapping[str, NDArray[np.floating]] | None = None,
) -> SampledBatches:
    """Return the batches of a mixture with each group's rows under a policy."""
    pace = Pace(batches)
    pools: list[KeptRows] = []
    first = shared.first if shared else 0
    streams: list[Any] = mixed.streams
    for group, stream in zip(mixed.groups, streams, strict=True):
        view = BroodView(shared, first, stream.order.rows, member, pace) if shared else None
        pools.append(KeptRows(stream, rule, seed, pace, view=view, score=(scores or {}).get(group)))
        first += stream.order.rows
    mixed.read_through(pools)
    return SampledBatches(mixed, pools, rule, pace, mixed.groups)


def sample_member(
    member: Any,
    rule: Rule,
    seed: int,
    batches: float,
    number: int,
    shared: Shared | None = None,
    scores: Mapping[str, NDArray[np.floating]] | None = None,  # group -> score of each of its rows
) -> None:
    """Put a policy between a new member and its rows; raises ValueError if its batches allow none."""
    rows = getattr(member, "batches", None)
    if isinstance(rows, VisitBatches):
        below = sample_groups(rows.mixed, rule, seed, batches, number, shared, scores)
        member.batches = SampledBatches(rows, below.pools, rule, below.pace, below.groups)
    elif isinstance(rows, MixedBatches):
        member.batches = sample_groups(rows, rule, seed, batches, number, shared, scores)
    elif isinstance(rows, Shuffled):
        member.batches = sample_arrays(rows, rule, seed, batches)
    else:
        raise ValueError(
            f"sampling: the batches of {type(member).__name__} must be `Shuffled`, got {type(rows).__name__}."
        )
    member.batches.wanted = lambda: member.hyperparameters.get("sampling", {})
