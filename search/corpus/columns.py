"""Records of named columns: numbers, labels, tensors, strings and images, as rows of one numpy type."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.rows import record_type
from shoal.search.config.rows import (
    ClassColumn,
    ImageColumn,
    NumberColumn,
    RecordColumns,
    StringColumn,
    TensorColumn,
    TextColumn,
    record_fields,
)
from shoal.search.corpus.documents import Document
from shoal.search.corpus.packing import SPLITS, PackedRows, row_id
from shoal.search.corpus.picking import Content, Pick
from shoal.search.corpus.quarantine import EXCERPT, Bad
from shoal.search.errors import nearest
from shoal.search.tokenizers import open_tokenizer
from shoal.trainables.tokenizer import Tokenizer

SPLIT_NAMES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("valid", "val", "dev"), "validation"),
    **dict.fromkeys(("testing",), "test"),
}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names of channels
SWITCHES = ("yes", "no", "on", "off", "y", "n", "true", "false")  # words that YAML may take for true or false
NUMPY_FILE = b"\x93NUMPY"


def columns_pick(columns: RecordColumns, split_field: str | None) -> Pick:
    """Return what reads records of these columns; with a split field, a split's number stands before each."""
    made = {name: column.build() for name, column in columns.items()}
    fields = [column.field or name for name, column in made.items()]
    fields += [split_field] if split_field else []
    read = partial(_record, made, record_type(record_fields(made)), split_field)
    return Pick("data.columns", tuple(dict.fromkeys(fields)), read, binary=True)


def _record(
    columns: RecordColumns, row_type: np.dtype[Any], split_field: str | None, found: Mapping[str, Any]
) -> Content:
    record = np.zeros(1, row_type)
    for name, column in columns.items():
        try:
            record[name][0] = TAKERS[type(column)](found[column.field or name], column)
        except (ValueError, OverflowError, TypeError) as error:
            said = " ".join(str(error).split())[:EXCERPT]
            return Bad(f"data.columns.{name}: {said}", repr(found[column.field or name])[:EXCERPT].encode())
    if split_field is None:
        return record.tobytes()
    named = text(found[split_field])
    if named not in SPLIT_NAMES:
        return Bad(f"{split_field!r} (data.split_field) must name a split{nearest(named, SPLIT_NAMES)}")
    return bytes([SPLITS.index(SPLIT_NAMES[named])]) + record.tobytes()


def text(value: Any) -> str:
    return value.decode().strip() if isinstance(value, bytes) else str(value)


def as_number(value: Any, column: NumberColumn) -> Any:
    """Return a number of the column's type; one that the type cannot hold raises ValueError."""
    kind = np.dtype(column.type)
    if isinstance(value, bytes):  # a member of a WebDataset
        value = float(value) if kind.kind == "f" else int(value)
    if not isinstance(value, bool | int | float | np.number):
        raise ValueError(f"must be a number, got {type(value).__name__}")
    return as_type(np.asarray(value), kind)[()]


def as_type(values: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Return numbers as a type that holds them; floats may be rounded, and no other number is changed."""
    if values.dtype.kind not in "biuf":
        raise ValueError(f"must hold numbers, got {values.dtype}")
    with np.errstate(all="ignore"):
        found = values.astype(kind)
    if kind.kind in "biu" and not (found == values).all():
        raise ValueError(f"must be whole numbers that {kind.name} can hold")
    if kind.kind == "f" and (np.isinf(found) & np.isfinite(values)).any():
        raise ValueError(f"must be numbers that {kind.name} can hold")
    return found


def label(value: Any, column: ClassColumn) -> int:
    if column.names is None:
        found = int(as_number(value, NumberColumn("int64")))
        if found < 0:
            raise ValueError(f"a label must be at least 0, got {found}")
        return found
    known, own = [str(name) for name in column.names], text(value)
    if isinstance(value, float) and value.is_integer() and own not in known:
        own = str(int(value))  # a table with an empty place somewhere stores whole numbers as 1.0
    if own not in known:
        read = any(isinstance(name, bool) for name in column.names) and own.lower() in SWITCHES
        hint = "; in YAML such a word is true or false, unless it is written in quotes" if read else ""
        raise ValueError(f"no such label {own!r}{nearest(own, known)}{hint}")
    return known.index(own)


def tensor(value: Any, column: TensorColumn) -> NDArray[Any]:
    if isinstance(value, bytes) and value.startswith(NUMPY_FILE):
        value = np.load(io.BytesIO(value), allow_pickle=False)
    found = np.asarray(value)
    flat = found.shape == (int(np.prod(column.shape)),)
    if found.shape != column.shape and not flat:
        raise ValueError(f"must have the shape {list(column.shape)}, got {list(found.shape)}")
    return as_type(found, np.dtype(column.type)).reshape(column.shape)


def string(value: Any, column: StringColumn) -> str:
    if not isinstance(value, str | bytes):
        raise ValueError(f"must be a text, got {type(value).__name__}")
    found = value.decode() if isinstance(value, bytes) else value
    if len(found) > column.length:
        raise ValueError(f"a text has at most {column.length} characters (length), got {len(found)}")
    return found


def tokens_of_text(value: Any, column: TextColumn) -> NDArray[np.int32]:
    """Return a text's ids and the one that ends texts, then -1: `(length,)`; of a list `(most, length)`."""
    if column.most is not None:
        if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray):
            raise ValueError(f"must be a list of texts (most: {column.most}), got {type(value).__name__}")
        several = np.full((column.most, column.length), -1, np.int32)
        one = replace(column, most=None)
        for place, text_ in enumerate(value[: column.most]):
            several[place] = tokens_of_text(text_, one)
        return several
    if not isinstance(value, str | bytes):
        raise ValueError(f"must be a text, got {type(value).__name__}")
    tokenizer = known_tokenizer(column.tokenizer)
    ids = tokenizer.encode(value.decode() if isinstance(value, bytes) else value)[: column.length - 1]
    found = np.full(column.length, -1, np.int32)
    found[: len(ids)], found[len(ids)] = ids, tokenizer.end
    return found


@cache
def known_tokenizer(name: str) -> Tokenizer:
    return open_tokenizer(name)


def image(value: Any, column: ImageColumn) -> NDArray[np.uint8]:
    """Return an encoded image as `(height, width, channels)`."""
    from PIL import Image

    content = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(content, bytes):
        raise ValueError(f"must be the bytes of an encoded image, got {type(content).__name__}")
    try:
        with Image.open(io.BytesIO(content)) as opened:
            found = opened.convert(MODES[column.channels])
    except Exception as error:  # Pillow's formats raise whatever they like
        raise ValueError(f"cannot be decoded as an image: {error}") from error
    height, width = column.size
    if found.size != (width, height):
        found = found.resize((width, height))
    return np.asarray(found, np.uint8).reshape(height, width, column.channels)


TAKERS: dict[type, Callable[..., Any]] = {
    NumberColumn: as_number,
    ClassColumn: label,
    TensorColumn: tensor,
    StringColumn: string,
    TextColumn: tokens_of_text,
    ImageColumn: image,
}


def pack_records(documents: Sequence[Document], columns: RecordColumns, split_field: str | None) -> PackedRows:
    """Return records as rows in the order of their ids; an id hashes the record."""
    row_type = record_type(record_fields({name: column.build() for name, column in columns.items()}))
    skip = 0 if split_field is None else 1
    ids = np.array([row_id(document.digest) for document in documents], np.int64)
    rows = np.frombuffer(b"".join(document.content[skip:] for document in documents), row_type)
    order = np.argsort(ids)
    return PackedRows(ids[order], rows[order], 0)
