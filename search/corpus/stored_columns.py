"""The columns of Arrow and Parquet as documents: each value is decoded by itself."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shoal.search.corpus.picking import Content, Pick, utf8
from shoal.search.corpus.quarantine import EXCERPT, Bad

BINARY = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def rows_of(batch: pa.RecordBatch, pick: Pick) -> Iterator[Content]:
    """Yield the document of each row."""
    if pick.single:
        yield from column(batch.column(batch.schema.names.index(pick.single)), pick.single)
        return
    columns = {field: as_stored(batch.column(batch.schema.names.index(field))) for field in pick.fields}
    for row in range(batch.num_rows):
        try:
            found = {field: plain(values[row]) for field, values in columns.items()}
        except Exception as error:  # such as a time beyond the year 9999, or text that is not UTF-8
            yield Bad(reading_failure(error))
        else:
            yield pick.of(found, "row", b"")


def plain(value: pa.Scalar) -> Any:
    """Return a value as Python has it; a list of numbers as an array."""
    numbers = isinstance(value, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar) and value.is_valid
    if numbers and pa.types.is_primitive(value.type.value_type) and not value.values.null_count:
        return value.values.to_numpy(zero_copy_only=False)
    return value.as_py()


def as_stored(found: pa.Array) -> pa.Array:
    """Return a column without what stands around its values, checked."""
    if isinstance(found, pa.ExtensionArray):
        found = found.storage
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    if pa.types.is_run_end_encoded(found.type):
        found = pc.run_end_decode(found)
    found = found.cast(BINARY.get(found.type, found.type))
    found.validate(full=True)  # a view outside its buffers would crash the process
    return found


def column(found: pa.Array, field: str) -> Iterator[Content]:
    """Yield a column's values, each decoded by itself."""
    found = as_stored(found)
    if found.type in BINARY.values():
        for value in found.to_pylist():
            yield utf8(value, field)
        return
    for scalar in found:
        try:
            value = scalar.as_py()
        except Exception:  # such as a time beyond the year 9999
            yield Bad(f"{field!r} (data.text_field) must hold text, got {found.type}")
        else:
            yield utf8(value, field)


def reading_failure(error: Exception) -> str:
    said = str(error)[:EXCERPT] or type(error).__name__
    return f"cannot be read: {said}"
