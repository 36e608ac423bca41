import threading

import numpy as np
import pyarrow as pa
import pytest

from shoal.cluster.row_order import RowOrder
from shoal.cluster.rows import as_column, as_rows, token_rows
from shoal.cluster.streams import WholeStream
from shoal.policies.mixing import normalise
from shoal.search.corpus.batches import MixedBatches

SIZES = [5, 3, 7]


def stored() -> np.ndarray:
    """15 rows of 4 tokens; every token of a row is its number."""
    return np.repeat(np.arange(15, dtype=np.uint16)[:, None], 4, axis=1)


def blocks(order: RowOrder, size: int) -> list[pa.Table]:
    """The rows in the order in which the first epoch's files arrive, cut into blocks of any size."""
    starts = np.cumsum([0, *SIZES])
    rows = np.concatenate([stored()[starts[file] : starts[file + 1]] for file in order.files(0)])
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [pa.table({"tokens": as_column(part)}) for part in parts]


def stream(seed: int = 0, size: int = 4) -> WholeStream:
    order = RowOrder("code", SIZES, seed)
    return WholeStream(blocks(order, size), order, token_rows(4))


def test_every_epoch_gives_each_row_once_in_another_order() -> None:
    rows = stream()
    epochs = [rows.take(15 * epoch, 15)[:, 0].tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(15)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_depends_on_the_seed_and_the_group_alone() -> None:
    expected = stream().take(0, 40)
    for size in (1, 2, 5, 15):
        assert np.array_equal(stream(size=size).take(0, 40), expected)
    singly = np.concatenate([stream().take(cursor, 1) for cursor in range(40)])
    assert np.array_equal(singly, expected)
    assert not np.array_equal(stream(seed=1).take(0, 40), expected)
    assert RowOrder("law", SIZES, 0).places(0, 15).tolist() != RowOrder("code", SIZES, 0).places(0, 15).tolist()


def test_rows_within_a_file_stay_together_so_that_a_stream_can_begin_early() -> None:
    order = RowOrder("code", SIZES, 3)
    places, starts = order.places(0, 15), np.cumsum([0, *SIZES])
    files = np.searchsorted(starts, places, side="right") - 1
    assert [file for i, file in enumerate(files) if i == 0 or files[i - 1] != file] == order.files(0)


def test_the_first_rows_come_before_the_last_file_has_arrived() -> None:
    order = RowOrder("code", SIZES, 0)
    held = threading.Event()

    def slow():
        arrived = blocks(order, SIZES[order.files(0)[0]])
        yield arrived[0]
        held.wait(10)
        yield from arrived[1:]

    rows = WholeStream(slow(), order, token_rows(4))
    first = rows.take(0, 2)
    held.set()
    assert np.array_equal(first, stream().take(0, 2))
    assert len(rows.take(0, 15)) == 15


def test_a_stream_that_breaks_says_so_to_whoever_waits() -> None:
    def breaks():
        yield from blocks(RowOrder("code", SIZES, 0), 4)[:1]
        raise OSError("disk on fire")

    rows = WholeStream(breaks(), RowOrder("code", SIZES, 0), token_rows(4))
    with pytest.raises(RuntimeError, match="ended early") as raised:
        rows.take(0, 15)
    assert "disk on fire" in str(raised.value.__cause__)
    with pytest.raises(RuntimeError, match="ended early"):
        WholeStream([], RowOrder("code", SIZES, 0), token_rows(4)).take(0, 1)


def test_batches_follow_proportions_from_the_next_one_and_a_clone_goes_on_where_its_donor_is() -> None:
    streams = {"code": stream(0), "law": stream(1)}
    batches = MixedBatches(streams, normalise([3, 1]), 8)
    assert batches.next().shape == (8, 4)
    assert batches.cursors == [6, 2]
    batches.proportions = normalise([1, 1])
    batches.next()
    assert batches.cursors == [10, 6]
    clone = MixedBatches(streams, normalise([1, 0]), 8)
    clone.load(batches.state())
    assert np.array_equal(clone.next(), batches.next())
    assert clone.cursors == batches.cursors


def as_lists(rows: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


@pytest.mark.parametrize("form", [as_column, as_lists])
def test_rows_are_views_of_a_block_in_either_form(form) -> None:
    rows = np.arange(40, dtype=np.uint16).reshape(10, 4) * 257
    block = pa.table({"tokens": form(rows)})
    for part, expected in ((block, rows), (block.slice(3, 5), rows[3:8]), (block.slice(9), rows[9:])):
        assert np.array_equal(as_rows(part), expected)
    assert np.shares_memory(as_rows(block), as_rows(block.slice(3, 5)))
    assert np.array_equal(as_rows(block.to_batches()[0]), rows)
    assert np.array_equal(
        as_rows(pa.concat_tables([block, block.slice(1, 2)])), np.concatenate([rows, rows[1:3]])
    )


def test_a_rows_bytes_are_little_endian() -> None:
    # 258 = 1 * 256 + 2: the low byte first
    assert as_column(np.array([[258, 7]], np.uint16)).to_pylist() == [b"\x02\x01\x07\x00"]
