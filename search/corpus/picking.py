"""Which fields of a source's records make a document, and what it holds: text, an example, ids or a record.

A document is bytes, so that all kinds are compared, counted and split alike: text as it is; an example as a
JSON list of its parts; token ids as uint32; a record of columns as the bytes of its row behind its split.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from shoal.search.config.rows import fields_in
from shoal.search.corpus.quarantine import EXCERPT, Bad
from shoal.search.errors import nearest

Content = bytes | Bad
NAMED_KEYS, KEY_LETTERS = 8, 40  # keys, and letters of each, that a message lists


@dataclass(frozen=True)
class Pick:
    """What is read from each record of a source."""

    key: str  # messages name this key of the run's file
    fields: tuple[str, ...]
    make: Callable[[Mapping[str, Any]], Content]  # gets a record that has all the fields
    single: str = ""  # the one field that is the text; a file of plain text is a document too then
    whole: bool = True  # whether a document is taken whole or not at all; text may be cut
    binary: bool = False  # whether documents are no UTF-8

    def of(self, found: Any, what: str, excerpt: bytes) -> Content:
        """Return the document in a decoded object, or why there is none."""
        if not isinstance(found, Mapping):
            return Bad(f"each {what} must be a JSON object", excerpt)
        if missing := next((field for field in self.fields if field not in found), None):
            return Bad(self.missing("field", missing, sorted(map(str, found))), excerpt)
        return self.make(found)

    def missing(self, what: str, field: str, names: Sequence[str]) -> str:
        """Return a message on a field, or column, that is not there."""
        if self.single:
            return f"no {what} {field!r}; set {self.key} to one of {short_list(list(names))}"
        short = [name for name in names if len(name) <= KEY_LETTERS][: 8 * NAMED_KEYS]
        return f"no {what} {field!r} ({self.key}){nearest(field, short)}"


def short_list(names: list[str]) -> str:
    """Return names for a message, few enough to be read."""
    short = [name if len(name) <= KEY_LETTERS else f"{name[:KEY_LETTERS]}…" for name in names[:NAMED_KEYS]]
    others = len(names) - len(short)
    return f"{short}{f' and {others} more' if others else ''}"


def utf8(value: object, field: str, key: str = "data.text_field") -> Content:
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")  # a lone surrogate of JSON is no text: put aside later
    if isinstance(value, bytes):
        return value
    if value is None:
        return Bad("empty")
    reason = f"{field!r} ({key}) must hold text, got {type(value).__name__}"
    return Bad(reason, repr(value)[:EXCERPT].encode(errors="replace"))


def text_pick(text: str, key: str = "data.text_field") -> Pick:
    """Return what reads a field as text, or a template of fields."""
    fields = tuple(fields_in(text))
    if fields == (text,):
        return Pick(key, fields, partial(_field, text), text, whole=False)
    return Pick(key, fields, partial(_template, text, key), whole=False)


def _field(field: str, found: Mapping[str, Any]) -> Content:
    return utf8(found[field], field)


def _template(text: str, key: str, found: Mapping[str, Any]) -> Content:
    made = rendered(text, key, found)
    return made if isinstance(made, Bad) else made.encode(errors="surrogatepass")


def rendered(text: str, key: str, found: Mapping[str, Any]) -> str | Bad:
    """Return the text of a field, or of a template whose fields are texts and numbers."""
    values = {}
    for field in fields_in(text):
        value = found[field]
        if isinstance(value, bytes):
            value = value.decode(errors="surrogateescape")
        if isinstance(value, bool | int | float | np.number):
            value = str(value)
        if value is None:
            return Bad(f"empty: {field!r} ({key}) is null")
        if not isinstance(value, str):
            return Bad(f"{field!r} ({key}) must hold text or a number, got {type(value).__name__}")
        values[field] = value
    return values[text] if text in values else text.format_map(values)


def parts_pick(key: str, texts: Mapping[str, str], between: str, choices: str | None = None) -> Pick:
    """Return what reads the parts of an example: its prompt first, then one answer or several.

    `choices` names the field of the answers to choose from, if there is one; they come last, as a list.
    """
    fields = tuple(dict.fromkeys(field for text in texts.values() for field in fields_in(text)))
    more = [choices] if choices and choices not in fields else []
    return Pick(key, (*fields, *more), partial(_parts, key, dict(texts), between, choices))


def _parts(
    key: str, texts: Mapping[str, str], between: str, choices: str | None, found: Mapping[str, Any]
) -> Content:
    parts: list[Any] = []
    for name, text in texts.items():
        part = rendered(text, f"{key}.{name}", found)
        if isinstance(part, Bad):
            return part
        if not part.strip() and name != "prompt":
            return Bad(f"empty: {key}.{name}")
        parts.append(part + between if name == "prompt" else part)
    if len(parts) > 2 and parts[1] == parts[2]:
        return Bad(f"{key}.chosen and {key}.rejected are the same text, so none is the better one")
    if choices is None:
        return as_json(parts)
    given = choices_in(found[choices], parts[-1], f"{choices!r} ({key}.choices)")
    return given if isinstance(given, Bad) else as_json([*parts, given])


def choices_in(value: Any, answer: str, named: str) -> list[str] | Bad:
    """Return the answers to choose from, or why a record's field has none."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return Bad(f"{named} must be a list of texts")
    plain = [each.strip() for each in value]
    if len(set(plain)) < max(len(plain), 2) or not all(plain):
        return Bad(f"{named} must have two different texts or more")
    if answer.strip() not in plain:
        return Bad(f"{named} must have the answer among its texts")
    return value


def as_json(value: Any) -> Content:
    try:
        return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    except (TypeError, ValueError) as error:
        return Bad(f"cannot be written as JSON: {error}")


class Writes(Protocol):
    """A chat template."""

    @property
    def special(self) -> list[str]: ...

    def pieces(self, messages: Sequence[Mapping[str, str]]) -> list[str]: ...


def chat_pick(field: str, template: Writes) -> Pick:
    return Pick("data.format.field", (field,), partial(_messages, field, template))


def _messages(field: str, template: Writes, found: Mapping[str, Any]) -> Content:
    """Return a chat as its template writes it, in pieces that are given and answered in turn."""
    messages = found[field]
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        return Bad(f"{field!r} (data.format.field) must be a list of messages with `role` and `content`")
    if not all(isinstance(each.get(name), str) for each in messages for name in ("role", "content")):
        names = sorted({str(name) for each in messages for name in each})
        return Bad(
            f"each message of {field!r} must have `role` and `content`, both texts, got {short_list(names)}"
        )
    if not any(each["role"] == "assistant" and each["content"].strip() for each in messages):
        return Bad("empty: no message of the assistant")
    written = [word for word in template.special for each in messages if word in each["content"]]
    if written:  # in the template's text it would be the token itself, and end a message
        return Bad(f"{field!r} has a message with the text of the special token {written[0]}")
    try:
        return as_json(template.pieces(messages))
    except ValueError as error:
        return Bad(str(error))


def ids_pick(field: str, vocabulary: int) -> Pick:
    return Pick("data.format.field", (field,), partial(_ids, field, vocabulary), binary=True)


def _ids(field: str, vocabulary: int, found: Mapping[str, Any]) -> Content:
    """Return token ids as uint32, once it is known that the vocabulary has all of them."""
    try:
        ids = np.asarray(found[field])
    except ValueError:
        ids = np.empty((0, 0))
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        return Bad(f"{field!r} (data.format.field) must hold a list of token ids")
    if not ids.size:
        return Bad("empty")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocabulary:
        return Bad(f"the token id {low if low < 0 else high} is not among the {vocabulary} of data.tokenizer")
    return ids.astype("<u4").tobytes()
