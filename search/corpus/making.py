"""What a run's `data:` makes of its sources: which documents are read, and how they are packed to rows."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from shoal.cluster.rows import fields_of, id_type
from shoal.search.config.rows import record_fields
from shoal.search.config.sections import Data
from shoal.search.corpus.columns import columns_pick, pack_records
from shoal.search.corpus.documents import Document
from shoal.search.corpus.examples import (
    ExamplePacking,
    instruction_type,
    pack_examples,
    pack_preferences,
    preference_type,
)
from shoal.search.corpus.packing import PackedRows, pack_documents, rows_joined
from shoal.search.corpus.picking import Pick, chat_pick, ids_pick, parts_pick, text_pick
from shoal.search.errors import InputError
from shoal.search.tokenizers import open_chat_template, open_tokenizer
from shoal.trainables.tokenizer import Tokenizer

Pack = Callable[[Sequence[Document]], PackedRows]


def pick_of(group: str, settings: Data) -> Pick:
    """Return what is read from each record of a group."""
    chosen = settings.format
    if settings.rows == "columns":
        return columns_pick(settings.columns, settings.split_field)
    if chosen is None:
        return text_pick(settings.text_of(group))
    if chosen.kind == "chat":
        return chat_pick(chosen.field, open_chat_template(settings.tokenizer))
    if chosen.kind == "tokens":
        return ids_pick(chosen.field, open_tokenizer(settings.tokenizer).vocabulary)
    names = ("prompt", "answer") if chosen.kind == "instruction" else ("prompt", "chosen", "rejected")
    texts, choices = {name: getattr(chosen, name) for name in names}, getattr(chosen, "choices", None)
    return parts_pick("data.format", texts, chosen.between, choices)


def pack_of(settings: Data) -> Pack:
    """Return what makes rows of documents."""
    chosen = settings.format
    if settings.rows == "columns":
        return partial(pack_records, columns=settings.columns, split_field=settings.split_field)
    tokenizer = open_tokenizer(settings.tokenizer)
    if chosen is None:
        return partial(pack_documents, tokenizer=tokenizer, length=settings.sequence_length)
    kind = id_type(tokenizer.vocabulary)
    if chosen.kind == "tokens":
        return partial(pack_ids, kind=kind, length=settings.sequence_length)
    packing = ExamplePacking(
        tokenizer,
        kind,
        settings.sequence_length,
        cut=chosen.too_long == "cut",
        packed=getattr(chosen, "packed", False),
        ends=chosen.kind != "chat",
    )
    return partial(pack_preferences if chosen.kind == "preference" else pack_examples, packing=packing)


def pack_ids(documents: Sequence[Document], kind: np.dtype[Any], length: int) -> PackedRows:
    """Return rows of documents that are token ids already; nothing is put between them."""
    return rows_joined(
        documents, [np.frombuffer(document.content, "<u4") for document in documents], kind, length
    )


def fields_made(settings: Data, tokenizer: Tokenizer) -> list[list[Any]]:
    """Return the fields of the records that are made; none for rows of plain tokens."""
    if settings.rows == "columns":
        return record_fields({name: column.build() for name, column in settings.columns.items()})
    kind = id_type(tokenizer.vocabulary)
    if settings.rows == "instruction":
        return fields_of(instruction_type(kind, settings.sequence_length))
    if settings.rows == "preference":
        return fields_of(preference_type(kind, settings.sequence_length))
    return []


def nothing_fits(group: str, settings: Data, dropped: int) -> InputError:
    """Return what is wrong with a group whose examples are all too long."""
    cuts = getattr(settings.format, "too_long", "") == "cut"
    way = f"raise data.sequence_length{'' if cuts else ', or set data.format.too_long: cut'}"
    return InputError(
        f"data.groups.{group} ({settings.groups[group]}): not one of {dropped} examples fits "
        f"data.sequence_length ({settings.sequence_length}) with a token of its answer; {way}."
    )
