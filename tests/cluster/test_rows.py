"""Rows of records go where rows of tokens go: through Parquet, whole groups, windows, tasks and batches."""

from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from shoal.cluster import reading
from shoal.cluster.row_order import RowOrder
from shoal.cluster.rows import (
    as_column,
    as_rows,
    by_field,
    column_name,
    described,
    fields_of,
    id_type,
    record_type,
    row_bytes,
    token_rows,
)
from shoal.cluster.storage import Store
from shoal.cluster.streams import Chunk, WholeStream, WindowStream
from shoal.policies.mixing import normalise
from shoal.search.corpus.batches import MixedBatches

SIZES = [5, 3, 7]
RECORD = record_type([["picture", "|u1", [3]], ["label", "<i8", []], ["name", "<U4", []]])


def records() -> np.ndarray:
    found = np.zeros(15, RECORD)
    found["label"], found["name"] = np.arange(15), [f"n{place}" for place in range(15)]
    found["picture"] = np.arange(15)[:, None]
    return found


def of_file(order: RowOrder, file: int) -> np.ndarray:
    return records()[order.starts[file] : order.starts[file + 1]]


def whole(group: str = "code", cut: int = 4) -> WholeStream:
    order = RowOrder(group, SIZES, 0)
    rows = np.concatenate([of_file(order, file) for file in order.files(0)])
    tables = [pa.table({"record": as_column(rows[start : start + cut])}) for start in range(0, 15, cut)]
    return WholeStream(tables, order, RECORD)


def window(group: str = "code", bound: int = 60) -> WindowStream:
    order = RowOrder(group, SIZES, 0)

    def feed(turn: int):
        while True:
            file = order.file(turn)
            yield Chunk(turn, 1, partial(of_file(order, file).take, order.shuffled(turn)))
            turn += 1

    return WindowStream(feed, order, RECORD, bound)


def test_ids_are_as_wide_as_the_vocabulary_needs() -> None:
    assert id_type(65_536) == np.uint16 and id_type(65_537) == np.uint32
    assert token_rows(128).itemsize == 256 and token_rows(128, id_type(100_000)).itemsize == 512


@pytest.mark.parametrize("kind", ["<u2", "<u4"])
def test_rows_of_either_width_come_back_from_their_bytes(kind) -> None:
    rows = np.arange(40, dtype=kind).reshape(10, 4) * 1000
    row_type = token_rows(4, np.dtype(kind))
    block = pa.table({"tokens": as_column(rows)})
    assert np.array_equal(as_rows(block, row_type), rows) and as_rows(block, row_type).dtype == kind
    assert row_bytes(rows) == rows.astype(kind).tobytes()
    assert described(row_type) == f"4 numbers a row, {np.dtype(kind).name}, little-endian"
    # 70000 = 1 * 65536 + 4464, and 4464 = 17 * 256 + 112
    assert as_column(np.array([[70_000]], "<u4")).to_pylist() == [bytes([112, 17, 1, 0])]
    told = block.replace_schema_metadata({"tokens": described(row_type)})
    assert as_rows(told).dtype == kind and np.array_equal(as_rows(told.slice(2, 3)), rows[2:5])


def test_records_come_back_from_their_bytes_and_go_out_by_field() -> None:
    rows = records()
    block = pa.table({column_name(RECORD): as_column(rows)})
    assert block.column_names == ["record"] and np.array_equal(as_rows(block, RECORD), rows)
    assert np.array_equal(as_rows(block.slice(3, 5), RECORD), rows[3:8])
    told = block.replace_schema_metadata({"record": described(RECORD)})
    assert np.array_equal(as_rows(told), rows)
    out = by_field(rows)
    assert list(out) == ["picture", "label", "name"] and out["picture"].shape == (15, 3)
    assert all(array.flags.c_contiguous for array in out.values())
    assert record_type(fields_of(RECORD)) == RECORD


def test_the_order_of_records_is_that_of_tokens() -> None:
    expected = RowOrder("code", SIZES, 0).places(0, 40).tolist()
    for cut in (1, 2, 5, 15):
        assert whole(cut=cut).take(0, 40)["label"].tolist() == expected
    singly = np.concatenate([whole().take(cursor, 1) for cursor in range(40)])
    assert singly["name"].tolist() == [f"n{place}" for place in expected]
    assert whole().pick(np.array([14, 0, 3]))["label"].tolist() == [14, 0, 3]
    member, rows, found = MixedBatches({}, np.zeros(0), 1), window(), []
    for cursor in range(0, 40, 8):
        assert rows.place(member, cursor) == cursor
        found += rows.take(cursor, 8)["label"].tolist()
    assert found == expected


@pytest.mark.parametrize("make", [whole, window])
def test_batches_of_records_are_arrays_by_field_and_a_clone_goes_on_where_its_donor_is(make) -> None:
    streams = {group: make(group) for group in ("code", "law")}
    member = MixedBatches(streams, normalise([3, 1]), 8)
    batch = member.next()
    assert {name: array.shape for name, array in batch.items()} == {
        "picture": (8, 3),
        "label": (8,),
        "name": (8,),
    }
    assert batch["label"].tolist() == [
        *RowOrder("code", SIZES, 0).places(0, 6).tolist(),
        *RowOrder("law", SIZES, 0).places(0, 2).tolist(),
    ]
    clone = MixedBatches({group: make(group) for group in streams}, normalise([1, 1]), 8)
    clone.load(member.state())
    one, other = clone.next(), member.next()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_task_returns_the_records_of_its_turns_in_their_order(tmp_path) -> None:
    store, order = Store(str(tmp_path)), RowOrder("code", SIZES, 0)
    for file in range(3):
        store.write_table(f"{file}.parquet", pa.table({"record": as_column(of_file(order, file))}))
    turns = range(2, 5)
    task = {
        "files": [f"{order.file(turn)}.parquet" for turn in turns],
        "seeds": [order.seeds(turn) for turn in turns],
        "rows": order.start(5) - order.start(2),
        "bytes": RECORD.itemsize,
        "keeps": False,
    }
    rows = as_rows(reading.read_turns(pa.Table.from_pylist([task]), store.uri), RECORD)
    assert rows["label"].tolist() == order.places(order.start(2), task["rows"]).tolist()
