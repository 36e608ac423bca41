"""What a run's file may say of its rows: how records become instruction rows, and which columns rows have."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from shoal.search.config.sections_of import OneOf, Sections

ROW_KINDS = ("tokens", "instruction", "preference", "columns")
RowKind = Literal["tokens", "instruction", "preference", "columns"]
NUMBER_TYPES = (
    *("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
LONGEST_STRING = 65536  # characters; each takes 4 bytes in every row


def fields_in(text: str) -> list[str]:
    """Return the fields of a template such as `{question}: {answer}`; a text without braces names one field."""
    if "{" not in text and "}" not in text:
        return [text]
    try:
        parts = [part for part in string.Formatter().parse(text) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"must be a field or a template of fields in braces, got {text!r}: {error}") from error
    if not parts or any(not name or form or change for _, name, form, change in parts):
        raise ValueError(f"must be a field or a template such as '{{question}} {{answer}}', got {text!r}")
    return list(dict.fromkeys(str(name) for _, name, _, _ in parts))


def must(name: str, holds: bool, what: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{name} must {what}, but got {got!r}.")


@dataclass(frozen=True)
class InstructionFormat:
    """A prompt and its answer: fields, or templates of fields."""

    prompt: str  # a field, or a template such as "{question}"
    answer: str  # a field, or a template; its tokens alone are learnt
    between: str = "\n"  # written after the prompt
    # the field with the answers to choose from, a list of texts that has the answer; for score: choice
    choices: str | None = None
    packed: bool = True  # several short examples share a row
    too_long: Literal["drop", "cut"] = "drop"  # an example that is longer than a row is dropped, or cut

    def __post_init__(self) -> None:
        for text in (self.prompt, self.answer):
            fields_in(text)


@dataclass(frozen=True)
class ChatFormat:
    """A list of messages, each with `role` and `content`, written by the tokenizer's own chat template."""

    field: str = "messages"  # the field that holds the list
    packed: bool = True  # several short chats share a row
    too_long: Literal["drop", "cut"] = "drop"  # a chat that is longer than a row is dropped, or cut


@dataclass(frozen=True)
class PreferenceFormat:
    """A prompt, and two answers to it: fields, or templates of fields."""

    prompt: str = "prompt"  # a field, or a template of fields
    chosen: str = "chosen"  # a field, or a template: the better answer
    rejected: str = "rejected"  # a field, or a template: the worse answer
    between: str = "\n"  # written after the prompt
    too_long: Literal["drop", "cut"] = "drop"  # a pair of which one is longer than a row is dropped, or cut

    def __post_init__(self) -> None:
        for text in (self.prompt, self.chosen, self.rejected):
            fields_in(text)


@dataclass(frozen=True)
class TokensFormat:
    """A list of token ids, taken as they are."""

    field: str = "input_ids"  # the field that holds the list


@dataclass(frozen=True)
class NumberColumn:
    """A number."""

    type: str = "float32"  # numpy's name of its type
    field: str | None = None  # its name in the source, if it has another one

    def __post_init__(self) -> None:
        must("type", self.type in NUMBER_TYPES, f"be one of {', '.join(NUMBER_TYPES)}", self.type)

    def row_field(self) -> tuple[str, tuple[int, ...]]:
        return np.dtype(self.type).newbyteorder("<").str, ()


@dataclass(frozen=True)
class ClassColumn:
    """A label: a whole number from 0 on, or one of `names`, whose place it becomes."""

    names: tuple[Any, ...] | None = None  # the labels, if they are no numbers
    field: str | None = None  # its name in the source, if it has another one

    def __post_init__(self) -> None:
        known = [str(name) for name in self.names or ()]
        twice = next((name for name in known if known.count(name) > 1), "")
        must("names", not twice, "name each label once", list(self.names or ()))

    def row_field(self) -> tuple[str, tuple[int, ...]]:
        return "<i8", ()


@dataclass(frozen=True)
class TensorColumn:
    """Numbers of a fixed shape."""

    shape: tuple[int, ...]  # sizes of its axes
    type: str = "float32"  # numpy's name of its numbers' type
    field: str | None = None  # its name in the source, if it has another one

    def __post_init__(self) -> None:
        must("type", self.type in NUMBER_TYPES, f"be one of {', '.join(NUMBER_TYPES)}", self.type)
        must("shape", bool(self.shape) and min(self.shape) > 0, "hold sizes of at least 1", self.shape)

    def row_field(self) -> tuple[str, tuple[int, ...]]:
        return np.dtype(self.type).newbyteorder("<").str, self.shape


@dataclass(frozen=True)
class StringColumn:
    """A text of at most `length` characters."""

    length: int = 64  # most characters
    field: str | None = None  # its name in the source, if it has another one

    def __post_init__(self) -> None:
        most = LONGEST_STRING
        must("length", 1 <= self.length <= most, f"be at least 1 and at most {most}", self.length)

    def row_field(self) -> tuple[str, tuple[int, ...]]:
        return f"<U{self.length}", ()


@dataclass(frozen=True)
class TextColumn:
    """A text as token ids, for an embedder: int32 `(length,)`, with -1 where it has ended; or several."""

    tokenizer: str = "bytes"  # bytes, a folder with a tokenizer.json, or package:NAME/FOLDER
    length: int = 64  # most tokens; what is longer is cut
    most: int | None = None  # a list of texts, of which so many are kept: int32 (most, length), with rows of -1
    field: str | None = None  # its name in the source, if it has another one

    def __post_init__(self) -> None:
        must("length", self.length >= 2, "be at least 2", self.length)
        must("most", self.most is None or self.most >= 1, "be at least 1", self.most)

    def row_field(self) -> tuple[str, tuple[int, ...]]:
        return "<i4", (self.length,) if self.most is None else (self.most, self.length)


@dataclass(frozen=True)
class ImageColumn:
    """An encoded image, such as PNG or JPEG: decoded to uint8 `(height, width, channels)`."""

    size: tuple[int, int]  # height and width in pixels; an image of another size is resized
    channels: int = 3  # 1 (grey), 3 (RGB) or 4 (RGBA)
    field: str | None = None  # its name in the source, if it has another one

    def __post_init__(self) -> None:
        must("size", min(self.size) > 0, "hold a height and a width of at least 1", self.size)
        must("channels", self.channels in (1, 3, 4), "be 1 (grey), 3 (RGB) or 4 (RGBA)", self.channels)

    def row_field(self) -> tuple[str, tuple[int, ...]]:
        return "|u1", (*self.size, self.channels)


FORMATS: dict[str, Any] = {
    "instruction": InstructionFormat,
    "chat": ChatFormat,
    "preference": PreferenceFormat,
    "tokens": TokensFormat,
}
ROWS_OF = {"instruction": "instruction", "chat": "instruction", "preference": "preference", "tokens": "tokens"}
COLUMN_KINDS: dict[str, Any] = {
    "number": NumberColumn,
    "class": ClassColumn,
    "tensor": TensorColumn,
    "string": StringColumn,
    "text": TextColumn,
    "image": ImageColumn,
}
AnyFormat = Annotated[Any, OneOf(Sections(lambda: FORMATS))]
AnyColumn = Annotated[Any, OneOf(Sections(lambda: COLUMN_KINDS))]
RecordColumns = Mapping[str, Any]  # name -> the dataclass of a column, in the order of the record's fields


def record_fields(columns: RecordColumns) -> list[list[Any]]:
    """Return the fields of records with these columns: name, numpy type and shape of each."""
    return [
        [name, kind, list(shape)] for name, (kind, shape) in ((n, c.row_field()) for n, c in columns.items())
    ]
