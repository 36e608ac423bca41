"""What a row is: token ids of one length, or a record of named fields; and how rows lie in Parquet.

A row type is a numpy type of a fixed size. That of plain tokens has a shape, `("<u2", (128,))`: rows of it are
an array `(rows, 128)`. That of records has fields, each of a type and a shape: rows of it are a structured
array `(rows,)`. numpy's `take`, `concatenate` and slices work on both alike.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Rows = NDArray[Any]  # (rows, sequence_length) of token ids, or (rows,) records
UINT16 = np.dtype("<u2")
MOST_UINT16 = 1 << 16  # ids that uint16 can hold
TOKENS, RECORD = "tokens", "record"  # the column of a corpus's Parquet, as rows are plain tokens or records
OF = ", of "  # stands before the fields in the metadata of records
EITHER = [TOKENS, RECORD]  # a reader asks for both, and a file has one


def id_type(vocabulary: int) -> np.dtype[Any]:
    """Return the narrowest type that holds all ids below `vocabulary`: uint16, or uint32."""
    return UINT16 if vocabulary <= MOST_UINT16 else np.dtype("<u4")


def token_rows(length: int, kind: np.dtype[Any] = UINT16) -> np.dtype[Any]:
    """Return the type of rows of plain tokens."""
    return np.dtype((kind, (length,)))


def column_name(row_type: np.dtype[Any]) -> str:
    return RECORD if row_type.names else TOKENS


def as_bytes(block: pa.Table | pa.RecordBatch) -> NDArray[np.uint8]:
    """View a block's rows, of fixed-size binary or of lists of uint16, as bytes `(rows, bytes of a row)`."""
    column = block[TOKENS if TOKENS in block.schema.names else RECORD]
    if isinstance(column, pa.ChunkedArray):  # to combine one chunk would copy it
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not pa.types.is_fixed_size_binary(column.type):
        numbers = column.flatten().to_numpy(zero_copy_only=False).astype(UINT16, copy=False)
        rows: NDArray[np.uint8] = numbers.reshape(len(column), -1).view(np.uint8)
        return rows
    width = column.type.byte_width
    bytes_ = np.frombuffer(column.buffers()[1], np.uint8, len(column) * width, column.offset * width)
    return bytes_.reshape(len(column), width)


def viewed(content: NDArray[np.uint8], row_type: np.dtype[Any]) -> Rows:
    """View bytes `(rows, bytes of a row)` as rows of a type."""
    rows = content.view(row_type.base)
    return rows.reshape(-1) if row_type.names else rows


def as_rows(block: pa.Table | pa.RecordBatch, row_type: np.dtype[Any] | None = None) -> Rows:
    """View a block's rows; their type is by default as the block's metadata say, which Ray may lose."""
    return viewed(as_bytes(block), row_type or stored_type(block))


def stored_type(block: pa.Table | pa.RecordBatch) -> np.dtype[Any]:
    """Return the type of a row, or of a token, as a file's metadata say; uint16 where they say nothing."""
    said = {name.decode(): text.decode() for name, text in (block.schema.metadata or {}).items()}
    if RECORD in said:
        return record_type(json.loads(said[RECORD].partition(OF)[2]))
    return np.dtype("<u4") if "uint32" in said.get(TOKENS, "") else UINT16


def as_column(rows: Rows) -> pa.FixedSizeBinaryArray:
    """Return rows as a column: each one's numbers as bytes, little-endian."""
    content = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
    width = content.dtype.itemsize * (content.shape[1] if content.ndim > 1 else 1)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(content)])


def row_bytes(rows: Rows) -> bytes:
    """Return the bytes of rows as they are stored, for digests."""
    return np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).tobytes()


def by_field(rows: Rows) -> Any:
    """Return rows as members get them: plain tokens as they are, records as a dict of arrays by field."""
    if rows.dtype.names is None:
        return rows
    # a field within records may lie at an odd place, which torch does not take: copy it out
    return {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names}


def described(row_type: np.dtype[Any]) -> str:
    """Return a row type in words, for the metadata of a file."""
    if row_type.names is None:
        return f"{row_type.shape[0]} numbers a row, {row_type.base.name}, little-endian"
    return f"a numpy record, little-endian{OF}{json.dumps(fields_of(row_type))}"


def fields_of(row_type: np.dtype[Any]) -> list[list[Any]]:
    """Return the fields of records as plain values: name, type and shape of each."""
    return [
        [name, row_type[name].base.newbyteorder("<").str, list(row_type[name].shape)]
        for name in row_type.names or ()
    ]


def record_type(fields: list[list[Any]]) -> np.dtype[Any]:
    """Return the row type of records with these fields, as `fields_of` has them."""
    return np.dtype([(name, kind, tuple(shape)) for name, kind, shape in fields])
