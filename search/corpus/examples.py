"""Examples packed to rows: instruction rows whose masks say which tokens are answers, and preference rows.

An example is a JSON list of texts: what is given, what is answered, and for a chat again what is given, and
so on. Every text is turned into ids by itself, so that no token belongs to two of them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.rows import Rows, record_type
from shoal.search.corpus.documents import Document
from shoal.search.corpus.packing import PackedRows, row_id
from shoal.search.errors import InputError
from shoal.trainables.tokenizer import Tokenizer

OPEN_ROWS = 64  # rows that still take examples; the oldest is closed when a new one begins


def parts_of(document: Document) -> list[str]:
    """Return the texts of an example, which are given and answered in turn."""
    return [part for part in json.loads(document.content) if isinstance(part, str)]


def choices_of(document: Document) -> list[str]:
    """Return the answers to choose from, which stand behind the texts; none where a format has no choices."""
    return [choice for part in json.loads(document.content) if isinstance(part, list) for choice in part]


class Example(NamedTuple):
    tokens: NDArray[np.integer]  # (tokens,)
    mask: NDArray[np.uint8]  # (tokens,): 1 where a token belongs to an answer


@dataclass(frozen=True)
class ExamplePacking:
    """How examples become rows of `length` tokens; `ends` adds the tokens around a text."""

    tokenizer: Tokenizer
    kind: np.dtype[Any]  # the type of a token id
    length: int
    cut: bool  # cut what is too long; otherwise drop it
    packed: bool = False
    ends: bool = True

    def example(self, parts: Sequence[str]) -> Example:
        """Return an example's ids and mask."""
        try:
            if self.ends:
                ids = [self.tokenizer.encode(parts[0]), *map(self.tokenizer.within, parts[1:])]
            else:  # a template has written the tokens around the texts
                ids = [*map(self.tokenizer.template, parts)]
        except ValueError as error:
            raise InputError(f"data.tokenizer: {error}") from error
        if self.ends:
            ids[-1] = np.append(ids[-1], self.tokenizer.end)
        masks = [np.full(len(part), place % 2, np.uint8) for place, part in enumerate(ids)]
        return Example(np.concatenate(ids).astype(self.kind), np.concatenate(masks))

    def fitted(self, example: Example) -> tuple[Example | None, bool]:
        """Return an example as it goes into a row, or None where it does not, and whether it was cut."""
        if len(example.tokens) <= self.length:
            return example, False
        example = Example(example.tokens[: self.length], example.mask[: self.length])
        # the loss at a place is of the token after it: the mask's first place never counts
        return (example if self.cut and example.mask[1:].any() else None), True


def instruction_type(kind: np.dtype[Any], length: int) -> np.dtype[Any]:
    """Return the type of instruction rows: tokens, the mask of answers, and the number of each segment."""
    fields = (("tokens", kind.str), ("mask", "|u1"), ("segment", "<u2"))
    return record_type([[name, of, [length]] for name, of in fields])


def preference_type(kind: np.dtype[Any], length: int) -> np.dtype[Any]:
    """Return the type of preference rows: two answers to one prompt, each with the mask of its tokens."""
    fields = (("chosen", kind.str), ("chosen_mask", "|u1"), ("rejected", kind.str), ("rejected_mask", "|u1"))
    return record_type([[name, of, [length]] for name, of in fields])


def pack_examples(documents: Sequence[Document], packing: ExamplePacking) -> PackedRows:
    """Return instruction rows in the order of their ids; an id hashes the examples of a row.

    Packed, each example goes into the first open row that has room for it, in the order of their digests.
    """
    bins: list[list[tuple[bytes, Example]]] = []
    open_, rooms = list[int](), list[int]()
    cut = dropped = 0
    for document in sorted(documents):
        example, too_long = packing.fitted(packing.example(parts_of(document)))
        if example is None:
            dropped += 1
            continue
        cut += too_long
        size = len(example.tokens)
        place = next((place for place, room in enumerate(rooms) if room >= size), None)
        if place is None:
            bins.append([])
            open_, rooms = [*open_, len(bins) - 1][-OPEN_ROWS:], [*rooms, packing.length][-OPEN_ROWS:]
            place = len(open_) - 1
        bins[open_[place]].append((document.digest, example))
        # a row that is not packed takes one example
        rooms[place] = rooms[place] - size if packing.packed else 0
    rows = _instruction_rows(bins, packing)
    ids = np.array([row_id(b"".join(digest for digest, _ in each)) for each in bins], np.int64)
    order = np.argsort(ids)
    return PackedRows(ids[order], rows[order], int((rows["segment"] > 0).sum()), cut, dropped)


def _instruction_rows(bins: Sequence[Sequence[tuple[bytes, Example]]], packing: ExamplePacking) -> Rows:
    rows = np.zeros(len(bins), instruction_type(packing.kind, packing.length))
    rows["tokens"] = packing.tokenizer.end  # padding: segment 0 tells it from an end
    for row, examples in zip(rows, bins, strict=True):
        start = 0
        for number, (_, example) in enumerate(examples, 1):
            end = start + len(example.tokens)
            row["tokens"][start:end], row["mask"][start:end] = example.tokens, example.mask
            row["segment"][start:end] = number
            start = end
    return rows


def pack_preferences(documents: Sequence[Document], packing: ExamplePacking) -> PackedRows:
    """Return preference rows in the order of their ids, one pair of answers in each, padded with ends."""
    found: list[tuple[int, Example, Example]] = []
    cut = dropped = 0
    for document in documents:
        prompt, *answers = json.loads(document.content)
        chosen, rejected = (packing.fitted(packing.example([prompt, answer])) for answer in answers)
        if chosen[0] is None or rejected[0] is None or np.array_equal(chosen[0].tokens, rejected[0].tokens):
            dropped += 1  # cut, two answers may have become one
            continue
        cut += chosen[1] or rejected[1]
        found.append((row_id(document.digest), chosen[0], rejected[0]))
    found.sort(key=lambda each: each[0])
    rows = np.zeros(len(found), preference_type(packing.kind, packing.length))
    tokens = 0
    for row, (_, *pair) in zip(rows, found, strict=True):
        for name, example in zip(("chosen", "rejected"), pair, strict=True):
            size = len(example.tokens)
            row[name][:size], row[name][size:] = example.tokens, packing.tokenizer.end
            row[f"{name}_mask"][:size] = example.mask
            tokens += size
    return PackedRows(np.array([number for number, *_ in found], np.int64), rows, tokens, cut, dropped)
