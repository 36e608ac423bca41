"""Documents packed to rows of tokens, and rows written to Parquet."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.cluster.rows import Rows, as_column, column_name, described, id_type, row_bytes
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.documents import Document
from shoal.search.errors import InputError
from shoal.trainables.tokenizer import Tokenizer

SPLITS = ("train", "validation", "test")
PART_ROWS = 4096  # most rows of a file; a file is one row group, and small ones let a stream start early
PART_BYTES = 16 << 20  # most bytes of a file of records
COMPRESSION = "lz4"


@dataclass(frozen=True)
class Split:
    rows: int
    tokens: int
    files: list[str]  # below the corpus directory
    sizes: list[int] | None = None  # rows of each file; None where all are full but the last
    questions: list[str] | None = None  # files of held-out prompts with the answers to choose from, if any

    @property
    def all_files(self) -> list[str]:
        """The files of rows, and those of questions."""
        return [*self.files, *(self.questions or ())]


class Built(NamedTuple):
    """What a builder returns for a group whose parts it has written."""

    documents: int
    duplicates: int
    splits: dict[str, Split]
    content: bytes  # digest of all rows
    cut: int = 0  # examples that were cut to a row's length
    dropped: int = 0  # examples that were too long


class PackedRows(NamedTuple):
    ids: NDArray[np.int64]  # (rows,) rising
    rows: Rows
    tokens: int  # without padding
    cut: int = 0  # examples that were cut to a row's length
    dropped: int = 0  # examples that were too long


def split_of(document: Document, settings: Data) -> str:
    """Return the split of a document: only its own hash or column decides it, so others do not matter."""
    if settings.split_field is not None:
        return SPLITS[document.content[0]]
    place = int.from_bytes(document.digest[:8], "big") / 2**64
    if place < settings.validation:
        return "validation"
    return "test" if place < settings.validation + settings.test else "train"


def pack_documents(documents: Sequence[Document], tokenizer: Tokenizer, length: int) -> PackedRows:
    """Return all whole rows of the documents one after another, in the order of their ids.

    An id hashes the document in which a row begins and where: it is the same in any corpus that packs the
    same documents, and its order is a shuffle, so that neighbours come from different documents.
    """
    end = np.array([tokenizer.end], id_type(tokenizer.vocabulary))
    encoded = [np.append(encode_document(tokenizer, document), end) for document in documents]
    return rows_joined(documents, encoded, end.dtype, length)


def rows_joined(
    documents: Sequence[Document], encoded: Sequence[NDArray[Any]], kind: np.dtype[Any], length: int
) -> PackedRows:
    """Return all whole rows of documents whose token ids are known, one after another."""
    tokens = np.concatenate([np.empty(0, kind), *encoded]).astype(kind, copy=False)
    begins = np.cumsum([0, *(part.size for part in encoded)])
    firsts = np.arange(tokens.size // length) * length
    owners = np.searchsorted(begins, firsts, side="right") - 1
    offsets = firsts - begins[owners]
    pairs = zip(owners.tolist(), offsets.tolist(), strict=True)
    ids = np.array([row_id(documents[owner].digest, offset) for owner, offset in pairs], np.int64)
    order = np.argsort(ids)
    rows = tokens[: firsts.size * length].reshape(-1, length)[order]
    return PackedRows(ids[order], rows, rows.size)


def encode_document(tokenizer: Tokenizer, document: Document) -> NDArray[np.integer]:
    try:
        return tokenizer.encode(document.content.decode())
    except ValueError as error:
        raise InputError(f"data.tokenizer: {error}") from error


def row_id(digest: bytes, offset: int = 0) -> int:
    """Return the id of the row that begins there in a document: a hash, at least 0."""
    hashed = hashlib.blake2b(digest + offset.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(hashed, "little") >> 1  # 63 bits, so it is never negative as int64


def write_rows(store: Store, stage: str, name: str, rows: PackedRows) -> Iterator[tuple[str, int, bytes]]:
    """Write rows to parts in the folder `stage`; yield each one's final name, rows and digest of its content.

    A name says what is in it, so that builds in one place never write over one another.
    """
    most = (
        min(PART_ROWS, max(1, PART_BYTES // rows.rows.dtype.itemsize)) if rows.rows.dtype.names else PART_ROWS
    )
    for start in range(0, len(rows.ids), most):
        ids, part = rows.ids[start : start + most], rows.rows[start : start + most]
        content = hashlib.blake2b(ids.astype("<i8").tobytes() + row_bytes(part), digest_size=16)
        file = f"{name}-{start // most:05d}-{content.hexdigest()[:16]}.parquet"
        write_part(store, f"{stage}/{file}", ids, part)
        yield file, len(ids), content.digest()


def write_part(store: Store, file: str, ids: NDArray[np.int64], rows: Rows) -> None:
    """Write a part as one row group, its rows as bytes: lists are decoded number by number."""
    column = as_column(rows)
    row_type = rows.dtype if rows.dtype.names else np.dtype((rows.dtype, rows.shape[1:]))
    name = column_name(row_type)
    schema = pa.schema(
        [pa.field("row_id", pa.int64(), nullable=False), pa.field(name, column.type, nullable=False)],
        metadata={name: described(row_type)},
    )
    table = pa.table({"row_id": ids, name: column}, schema=schema)
    options = {"compression": COMPRESSION, "use_dictionary": False, "write_statistics": ["row_id"]}
    store.write_table(file, table, row_group_size=PART_ROWS, **options)
