"""Find out what the columns of a source are, where its types leave no doubt."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shoal.search.config.rows import COLUMN_KINDS, NUMBER_TYPES
from shoal.search.config.sections import Data
from shoal.search.config.sections_of import kind_of
from shoal.search.corpus.listing import opener
from shoal.search.corpus.opening import ARROW_STREAM, turn
from shoal.search.corpus.sources import listed
from shoal.search.errors import InputError

FIRST_BYTES = 8  # bytes at the beginning of a file that say what it is


def with_columns(settings: Data) -> Data:
    """Return the settings with the columns of their rows: if none are given, those of the first schema."""
    if settings.rows != "columns" or settings.columns:
        return settings
    group = next(iter(settings.groups))
    schema = schema_of(group, settings)
    found: dict[str, Any] = {}
    unclear: list[str] = []
    for field in schema:
        if field.name == settings.split_field:
            continue
        kind = column_of_type(field.type)
        if kind is None:
            unclear.append(f"{field.name} ({field.type})")
        else:
            found[field.name] = kind
    if unclear or not found:
        raise unsure(group, settings, f"{', '.join(unclear) or 'its schema'} may be several things")
    return settings.model_copy(update={"columns": found})


def unsure(group: str, settings: Data, why: str) -> InputError:
    return InputError(
        f"data.columns: must say what the columns of data.groups.{group} ({settings.groups[group]}) are, since "
        f"{why}; such as `{{picture: {{kind: image, size: [32, 32]}}, label: class, name: string}}`"
    )


def schema_of(group: str, settings: Data) -> pa.Schema:
    """Return the schema of the file whose turn is first."""
    place, listing = listed(group, settings)
    file = min(listing.files, key=lambda file: turn(file.path))
    try:
        with opener(place, file.path)() as raw:
            head = raw.read(FIRST_BYTES)
            raw.seek(0)
            if head.startswith(b"PAR1"):
                return pq.ParquetFile(raw).schema_arrow
            if head.startswith(b"ARROW1"):
                return pa.ipc.open_file(raw).schema
            if ARROW_STREAM.match(head):
                return pa.ipc.open_stream(raw).schema
    except (OSError, pa.ArrowException) as error:
        raise unsure(group, settings, f"{file.path} cannot be read: {' '.join(str(error).split())}") from error
    raise unsure(group, settings, f"{file.path} has no types, as Parquet and Arrow have")


def column_of_type(kind: pa.DataType) -> Any:
    """Return the typed_section of a column of this type, or None if it may be several things."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return typed_section("tensor", kind.value_type, shape=tuple(kind.shape))
    if pa.types.is_fixed_size_list(kind):
        return typed_section("tensor", kind.value_type, shape=(kind.list_size,))
    return typed_section("number", kind)


def typed_section(name: str, kind: pa.DataType, **more: Any) -> Any:
    known: Mapping[str, str] = {"halffloat": "float16", "float": "float32", "double": "float64"}
    type_ = known.get(str(kind), str(kind))
    if type_ not in NUMBER_TYPES:
        return None
    return partial(kind_of(name, COLUMN_KINDS[name]), kind=name)(type=type_, **more)
