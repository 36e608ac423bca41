"""A sampling policy over a group that is read through a window: it decides by the rows' numbers alone."""

import numpy as np
import pytest

from shoal.cluster.row_order import RowOrder
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.policies.sampling.random_subset import RandomSubset
from shoal.policies.sampling.seta import SeTa
from shoal.search.corpus.batches import MixedBatches
from shoal.search.members.kept import KeptRows
from shoal.search.members.mixed import VisitBatches
from shoal.search.members.sampled import SampledBatches, sample_groups
from shoal.search.members.views import Pace
from shoal.search.worker.teams import reading
from tests.cluster.test_windows import ROWS, SIZES, expected, stored, window

RULES = [RandomSubset(0.3), RandomSubset(0.5, replacement=True), SeTa(0.1, 4, 2), InfoBatch(0.5)]
rules = pytest.mark.parametrize("rule", RULES, ids=repr)


class Whole:
    """The window's group, held whole."""

    def __init__(self) -> None:
        self.order = RowOrder("code", SIZES, 0)
        self.rows = np.concatenate([stored(file) for file in range(len(SIZES))])

    def place(self, reader: object, cursor: int) -> int:
        return cursor

    def take(self, cursor: int, count: int) -> np.ndarray:
        return self.rows[self.order.places(cursor, count)]


def batches(stream, rule, batch: int = 4) -> SampledBatches:
    return sample_groups(MixedBatches({"code": stream}, np.ones(1), batch), rule, 3, 100)


@rules
def test_where_nobody_jumps_the_kept_rows_are_those_of_the_whole_group(rule) -> None:
    read_turns: list[int] = []
    streams = [Whole(), window(bound=60, sizes=(1, 2), read=read_turns)]
    whole, through = (batches(stream, rule) for stream in streams)
    for _ in range(60):
        found = [each.next() for each in (whole, through)]
        assert np.array_equal(found[0]["rows"], found[1]["rows"])
        assert np.array_equal(found[0]["weights"]["kept"], found[1]["weights"]["kept"])
        for each, batch in zip((whole, through), found, strict=True):
            each.observe((batch["rows"][None, :, 0] % 7).astype(np.float32))
        held = streams[1].chunks
        assert (
            sum(
                streams[1].order.start(each.first + each.turns) - streams[1].order.start(each.first)
                for each in list(held)
            )
            <= 60
        )
    (pool,) = through.pools
    assert list(streams[1].readers) == [pool]  # and not the mixture around it
    assert pool.epoch > 3 and pool.skipped == 0 and whole.kept == through.kept
    # every turn was read once, also those of which few rows were kept
    assert read_turns == list(range(len(read_turns)))


def test_who_is_left_behind_jumps_and_what_was_not_read_is_counted() -> None:
    # a bound of 40 keeps 20 rows behind the furthest reader
    stream = window(bound=40)
    slow, fast = batches(stream, RandomSubset(1.0), 1), batches(stream, RandomSubset(0.3), 3)
    first = slow.next()
    assert first["rows"][:, 0].tolist() == expected(0, 1)
    for _ in range(4):
        fast.next()
    stood = stream.furthest
    assert stood > 30
    order = stream.order
    landed = next(order.start(turn) for turn in range(40) if order.start(turn) >= stood - 20)
    assert slow.next()["rows"][:, 0].tolist() == expected(landed, 1)
    (pool,) = slow.pools
    assert (pool.skipped, pool.position, pool.taken) == (landed - 1, landed + 1, 2)

    class Member:
        batches = slow

    assert reading(Member())[:2] == ({"code": (landed + 1) / ROWS}, {"code": landed - 1})
    # a clone takes over what its donor has skipped
    clone = batches(stream, RandomSubset(1.0), 1)
    clone.load(slow.state())
    assert clone.pools[0].skipped == landed - 1
    assert clone.next()["rows"][:, 0].tolist() == expected(landed + 1, 1)


def test_a_jump_into_another_epoch_is_planned_for_that_one() -> None:
    stream = window(bound=40)
    slow, fast = batches(stream, RandomSubset(0.5), 1), batches(stream, RandomSubset(1.0), 10)
    slow.next()
    for _ in range(8):
        fast.next()
    batch = slow.next()
    (pool,) = slow.pools
    assert pool.epoch == pool.position // ROWS >= 2
    kept = pool.keep.copy()
    alone = KeptRows(Whole(), RandomSubset(0.5), 3, Pace(100))
    alone.position = pool.epoch * ROWS
    alone.begin()
    assert np.array_equal(alone.keep, kept) and kept[batch["rows"][0, 0]]


def test_a_resumed_brood_of_sampled_members_begins_with_its_slowest() -> None:
    read_turns: list[int] = []
    stream = window(bound=80, read=read_turns)
    members = [batches(stream, RandomSubset(1.0), 5) for _ in range(2)]
    for member, position in zip(members, (60, 41), strict=True):
        state = member.state()
        state["pools"][0]["position"] = position
        member.load(state)
    assert members[0].next()["rows"][:, 0].tolist() == expected(60, 5)
    assert members[1].next()["rows"][:, 0].tolist() == expected(41, 5)
    assert members[1].pools[0].skipped == 0 and read_turns[0] == stream.order.locate(41)[0]


def test_jumps_of_members_that_mix_are_told_too() -> None:
    stream = window(bound=40)

    class Member:
        batches = VisitBatches(MixedBatches({"code": stream}, np.ones(1), 1))

    Member.batches.next()
    fast = MixedBatches({"code": stream}, np.ones(1), 10)
    for _ in range(4):
        fast.next()
    Member.batches.next()
    assert reading(Member()).skipped["code"] == Member.batches.mixed.cursors[0] - 2 > 0
    sample_groups(Member.batches.mixed, RandomSubset(0.5), 3, 100)
    assert Member.batches.mixed not in stream.readers
