"""A group larger than its room, read through a window; and groups that run out."""

import threading
from collections.abc import Iterator
from functools import partial
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.cluster import reading
from shoal.cluster.row_order import RowOrder, drawn
from shoal.cluster.rows import as_column, as_rows, token_rows
from shoal.cluster.storage import Store
from shoal.cluster.streams import Chunk, WindowStream, rooms
from shoal.policies.finite_groups import share_out
from shoal.policies.mixing import normalise
from shoal.search.corpus.batches import MixedBatches
from shoal.search.errors import Exhausted

SIZES = [5, 3, 7, 6, 4]
ROWS = 25


def stored(file: int) -> np.ndarray:
    start = sum(SIZES[:file])
    return np.repeat(np.arange(start, start + SIZES[file], dtype=np.uint16)[:, None], 4, axis=1)


def feed(order: RowOrder, sizes: list[int], read: list[int], turn: int) -> Iterator[Chunk]:
    """Chunks of as many turns as `sizes` has, again and again; notes the turns that were read."""
    while True:
        for turns in sizes:
            files = [stored(order.file(each))[order.shuffled(each)] for each in range(turn, turn + turns)]
            read += range(turn, turn + turns)
            yield Chunk(turn, turns, partial(np.concatenate, files))
            turn += turns


def window(bound: int = 60, sizes: tuple[int, ...] = (1,), read: list[int] | None = None) -> WindowStream:
    order = RowOrder("code", SIZES, 0)
    return WindowStream(
        partial(feed, order, list(sizes), [] if read is None else read), order, token_rows(4), bound
    )


def expected(cursor: int, count: int) -> list[int]:
    return RowOrder("code", SIZES, 0).places(cursor, count).tolist()


@pytest.mark.parametrize("sizes", [(1,), (2,), (1, 2, 3), (5,), (7,)])
def test_a_window_gives_the_order_of_its_group_over_epochs_whatever_its_chunks(sizes) -> None:
    rows, reader, cursor = window(sizes=sizes), MixedBatches({}, np.zeros(0), 1), 0
    for count in [1, 4, 11, 2, 9] * 8:
        assert rows.place(reader, cursor) == cursor
        assert rows.take(cursor, count)[:, 0].tolist() == expected(cursor, count)
        cursor += count
    assert cursor > 8 * ROWS


def test_a_window_holds_no_more_than_its_bound_and_reads_ahead_over_an_epochs_end() -> None:
    read: list[int] = []
    rows = window(bound=40, read=read)
    one = MixedBatches({"code": rows}, np.ones(1), 5)
    for _ in range(30):
        one.next()
        held = sum(int(rows.order.sizes[rows.order.file(chunk.first)]) for chunk in list(rows.chunks))
        assert held <= 40
    # each turn was read once, and the epoch's last rows were not waited for: the next one's were there
    assert read == list(range(len(read))) and len(read) >= 6 * len(SIZES)


def test_members_at_their_own_places_share_what_is_read() -> None:
    read: list[int] = []
    streams = {"code": window(read=read)}
    slow, fast = MixedBatches(streams, np.ones(1), 2), MixedBatches(streams, np.ones(1), 4)
    for step in range(5):
        assert fast.next()[:, 0].tolist() == expected(4 * step, 4)
        assert slow.next()[:, 0].tolist() == expected(2 * step, 2)
    assert slow.skipped == fast.skipped == [0]
    assert read == list(range(len(read)))


@pytest.mark.parametrize("sizes", [(1,), (2,), (3, 1)])
def test_who_falls_behind_the_bound_jumps_to_the_first_file_within_it_and_it_is_counted(sizes) -> None:
    # a bound of 40 keeps 20 rows behind the furthest reader
    streams = {"code": window(bound=40, sizes=sizes)}
    slow, fast = MixedBatches(streams, np.ones(1), 1), MixedBatches(streams, np.ones(1), 10)
    slow.next()
    for _ in range(4):
        fast.next()
    # the furthest stood at 30 when it took its last batch; the first turn that starts at 10 or later
    order = RowOrder("code", SIZES, 0)
    landed = next(order.start(turn) for turn in range(20) if order.start(turn) >= 10)
    assert slow.next()[:, 0].tolist() == expected(landed, 1)
    assert slow.skipped == [landed - 1] and slow.cursors == [landed + 1] and fast.skipped == [0]
    assert slow.reading() == ({"code": (landed + 1) / ROWS}, {"code": landed - 1}, None)
    # a clone takes over what its donor has skipped
    clone = MixedBatches(streams, np.ones(1), 1)
    clone.load(slow.state())
    assert clone.skipped == [landed - 1] and clone.next()[0, 0] == expected(landed + 1, 1)[0]


def test_a_resumed_brood_begins_with_its_slowest_member() -> None:
    read: list[int] = []
    streams = {"code": window(bound=80, read=read)}
    members = [MixedBatches(streams, np.ones(1), 5) for _ in range(2)]
    for member, cursor in zip(members, (60, 41), strict=True):
        member.load(member.state() | {"cursors": [cursor]})
    assert members[0].next()[:, 0].tolist() == expected(60, 5)
    assert members[1].next()[:, 0].tolist() == expected(41, 5)
    assert members[1].skipped == [0] and read[0] == RowOrder("code", SIZES, 0).locate(41)[0]


def test_a_window_whose_feed_breaks_says_so() -> None:
    def broken(turn: int) -> Iterator[Chunk]:
        raise OSError("disk on fire")
        yield

    rows = WindowStream(broken, RowOrder("code", SIZES, 0), token_rows(4), 40)
    with pytest.raises(RuntimeError, match="ended early") as raised:
        rows.take(0, 1)
    assert "disk on fire" in str(raised.value.__cause__)


def test_a_window_that_is_closed_stops_reading() -> None:
    ended = threading.Event()

    def endless(turn: int) -> Iterator[Chunk]:
        try:
            yield from feed(RowOrder("code", SIZES, 0), [1], [], turn)
        finally:
            ended.set()

    rows = WindowStream(endless, RowOrder("code", SIZES, 0), token_rows(4), 40)
    rows.take(0, 1)
    rows.close()
    assert ended.wait(10)
    with pytest.raises(RuntimeError, match="ended early"):
        rows.take(100, 1)


def test_a_budget_is_shared_so_that_small_groups_are_whole() -> None:
    # 100 for three: 10 takes 10 of its 33, 40 takes 40 of 45, the rest is for the large one
    assert rooms([500.0, 10.0, 40.0], 100.0) == [50.0, 10.0, 40.0]
    assert rooms([500.0, 10.0, 90.0], 100.0) == [45.0, 10.0, 45.0]
    assert rooms([1.0, 2.0], 100.0) == [1.0, 2.0]


def test_what_a_group_lacks_goes_to_the_others_by_hand() -> None:
    # 8 rows at (1/2, 1/4, 1/4): 4, 2, 2; the first has 1 left, and its 3 go 2 : 1 by largest remainder
    # (1.5 each, the tie goes to the earlier group), so 1, 4, 3
    assert share_out([0.5, 0.25, 0.25], 8, [0.0] * 3, [1, 90, 90]) == ([1, 4, 3], [0.0] * 3)
    # from then on it has no share: 8 at (0, 1/2, 1/2)
    assert share_out([0.5, 0.25, 0.25], 8, [0.0] * 3, [0, 86, 87]) == ([0, 4, 4], [0.0] * 3)
    assert share_out([0.5, 0.25, 0.25], 8, [0.0] * 3, [0, 5, 2]) is None
    # a group without a share does not help out
    assert share_out([1.0, 0.0], 8, [0.0] * 2, [7, 90]) is None


@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 200)), min_size=1, max_size=6), st.integers(1, 30))
def test_groups_that_run_out_give_every_row_once_and_whole_batches(groups, batch: int) -> None:
    shares, left = normalise([share for share, _ in groups]).tolist(), [rows for _, rows in groups]
    debt, given_rows = [0.0] * len(groups), 0
    while (found := share_out(shares, batch, debt, left)) is not None:
        counts, debt = found
        assert sum(counts) == batch and min(counts) >= 0
        left = [rows - count for rows, count in zip(left, counts, strict=True)]
        given_rows += batch
        assert min(left) >= 0
    assert sum(left) < batch and given_rows + sum(left) == sum(rows for _, rows in groups)


def test_a_group_drops_out_or_ends_the_run_by_choice() -> None:
    def batches(**choice) -> MixedBatches:
        streams = {"code": window(), "law": window(bound=100)}
        return MixedBatches(streams, normalise([3, 1]), 5, limits=[10, 30], **choice)

    drops = batches()
    rows = np.concatenate([drops.next() for _ in range(8)])
    # two batches at 3.75 : 1.25 take (4, 1), (4, 1); in the third code has 2 left
    assert drops.cursors == [10, 30] and len(rows) == 40
    with pytest.raises(Exhausted, match="code, law read to the end"):
        drops.next()
    stops = batches(stop=True)
    for _ in range(3):
        stops.next()
    assert stops.cursors == [10, 5]
    with pytest.raises(Exhausted, match="code read to the end"):
        stops.next()


class FakeDataset:
    """What a dataset of files gives, without Ray: bundles of blocks, cut after every `cut` rows."""

    opened: list[int] = []  # noqa: RUF012

    def __init__(self, tasks: list[dict], cut: int):
        self.tasks, self.cut = tasks, cut

    def iter_internal_ref_bundles(self) -> Iterator[SimpleNamespace]:
        FakeDataset.opened.append(len(self.tasks))
        for task in self.tasks:
            turns = zip(task["files"], task["seeds"], strict=True)
            rows = np.concatenate([stored(int(file))[drawn(seeds, SIZES[int(file)])] for file, seeds in turns])
            assert rows.shape == (task["rows"], 4) and task["bytes"] == 8
            parts = [rows[start : start + self.cut] for start in range(0, len(rows), self.cut)]
            tables = [pa.table({"tokens": as_column(part)}) for part in parts]
            yield SimpleNamespace(block_refs=tables, metadata=tables)  # a table knows its `num_rows` too


@pytest.mark.parametrize(("cut", "room"), [(1000, 1 << 20), (3, 1 << 20), (1000, 100)])
def test_a_feed_goes_on_over_datasets_and_epochs(monkeypatch, cut, room) -> None:
    monkeypatch.setattr(reading, "SEGMENT", 3)
    monkeypatch.setattr(reading, "EARLY", 1)
    monkeypatch.setattr(reading, "_dataset", lambda tasks, read, room, at_once: FakeDataset(tasks, cut))
    monkeypatch.setattr(reading.ray, "get", lambda blocks: blocks)
    order, read = RowOrder("code", SIZES, 0), FakeDataset.opened
    read.clear()
    files = [str(file) for file in range(len(SIZES))]
    feed_ = partial(reading.read_on, SimpleNamespace(uri=""), files, order, token_rows(4), room, 1)
    rows = WindowStream(feed_, order, token_rows(4), 500)
    one = MixedBatches({"code": rows}, np.ones(1), 9)
    one.load(one.state() | {"cursors": [13]})
    for step in range(40):
        assert one.next()[:, 0].tolist() == expected(13 + 9 * step, 9)
    rows.close()  # or its thread would go on with the real datasets, and start a Ray
    assert len(read) >= 2 and set(read) == {3}
    turns = [len(each) for each in islice(reading.task_turns(order, 8, room, 4), 4)]
    # tasks grow up to half of the room: 2^19 bytes are many files of 7 rows of 8 bytes, 50 are none
    assert turns == ([1, 2, 4, 8] if room > 100 else [1, 1, 1, 1])


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("form", [as_column, lambda rows: pa.FixedSizeListArray.from_arrays(rows.ravel(), 4)])
def test_a_task_returns_the_rows_of_its_turns_in_their_order(tmp_path, form, keeps) -> None:
    store, order = Store(str(tmp_path)), RowOrder("code", SIZES, 0)
    for file in range(len(SIZES)):
        store.write_table(f"{file}.parquet", pa.table({"tokens": form(stored(file))}))
    turns = range(3, 9)  # the end of one epoch, and most of the next
    task = {
        "files": [f"{order.file(turn)}.parquet" for turn in turns],
        "seeds": [order.seeds(turn) for turn in turns],
        "rows": order.start(9) - order.start(3),
        "bytes": 8,
        "keeps": keeps,
    }
    rows = as_rows(reading.read_turns(pa.Table.from_pylist([task]), store.uri))
    assert rows[:, 0].tolist() == expected(order.start(3), task["rows"])
    # while these are held, the next task has memory of its own
    backwards = task | {"files": task["files"][::-1], "seeds": task["seeds"][::-1]}
    others = as_rows(reading.read_turns(pa.Table.from_pylist([backwards]), store.uri))
    assert others.tolist() != rows.tolist()
    assert rows[:, 0].tolist() == expected(order.start(3), task["rows"])
    with pytest.raises(ValueError, match="must hold 99 rows as the corpus says"):
        reading.read_turns(pa.Table.from_pylist([task | {"rows": 99}]), store.uri)


def test_an_executor_waits_longer_and_longer_until_a_block_is_taken(monkeypatch) -> None:
    monkeypatch.setattr(reading, "STEP_SECONDS", 60.0)
    monkeypatch.setattr(reading, "PAUSES", (0.001, 0.004))
    taken = reading.Taken()
    monkeypatch.setattr(reading.STARTING, "taken", taken, raising=False)
    unhurried, pauses = reading.Unhurried(), []
    for _ in range(4):
        unhurried.on_execution_step(None)
        pauses.append(unhurried.pause)
    assert pauses == [0.002, 0.004, 0.004, 0.004]  # the next ones
    taken.one()
    unhurried.on_execution_step(None)
    assert unhurried.pause == 0.001
    monkeypatch.setattr(reading, "STEP_SECONDS", 0.0)  # as if the look itself had waited for a task
    unhurried.pause = 60.0
    unhurried.on_execution_step(None)
    assert unhurried.pause == 0.001


def test_how_many_batches_are_left_is_known_before_they_are_read() -> None:
    def batches(**choice) -> MixedBatches:
        streams = {"code": window(), "law": window(bound=100)}
        return MixedBatches(streams, normalise([3, 1]), 5, limits=[10, 30], **choice)

    for stop, whole in ((True, 3), (False, 8)):  # see the test above
        rows = batches(stop=stop)
        for taken in range(whole):
            assert rows.left(2) == min(2, whole - taken) and rows.left(100) == whole - taken
            rows.next()
        assert rows.left(100) == 0
        with pytest.raises(Exhausted):
            rows.next()
        assert rows.read_out() == (["code"] if stop else ["code", "law"])
    endless = MixedBatches({"code": window()}, np.ones(1), 5)
    assert endless.left(1000) == 1000
