"""Documents packed to rows of tokens, and rows written to Parquet."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.cluster.streams import as_column
from shoal.search.config.sections import Data
from shoal.search.corpus.documents import Document
from shoal.search.errors import InputError
from shoal.trainables.tokenizer import Tokenizer

SPLITS = ("train", "validation", "test")
PART_ROWS = 4096  # most rows of a file; a file is one row group, and small ones let a stream start early
COMPRESSION = "lz4"


@dataclass(frozen=True)
class Split:
    rows: int
    tokens: int
    files: list[str]  # below the corpus directory
    sizes: list[int] | None = None  # rows of each file; None where all are full but the last


class Built(NamedTuple):
    """What a builder returns for a group whose parts it has written."""

    documents: int
    duplicates: int
    splits: dict[str, Split]
    content: bytes  # digest of all rows


class PackedRows(NamedTuple):
    ids: NDArray[np.int64]  # (rows,) rising
    tokens: NDArray[np.uint16]  # (rows, sequence_length)


def split_of(document: Document, settings: Data) -> str:
    """Return the split of a document: only its own hash decides it, so other documents do not matter."""
    place = int.from_bytes(document.digest[:8], "big") / 2**64
    if place < settings.validation:
        return "validation"
    return "test" if place < settings.validation + settings.test else "train"


def pack_documents(documents: Sequence[Document], tokenizer: Tokenizer, length: int) -> PackedRows:
    """Return all whole rows of the documents one after another, in the order of their ids.

    An id hashes the document in which a row begins and where: it is the same in any corpus that packs the
    same documents, and its order is a shuffle, so that neighbours come from different documents.
    """
    end = np.array([tokenizer.end], np.uint16)
    encoded = [np.append(encode_document(tokenizer, document), end) for document in documents]
    tokens = np.concatenate([end[:0], *encoded])
    begins = np.cumsum([0, *(part.size for part in encoded)])
    firsts = np.arange(tokens.size // length) * length
    owners = np.searchsorted(begins, firsts, side="right") - 1
    offsets = firsts - begins[owners]
    pairs = zip(owners.tolist(), offsets.tolist(), strict=True)
    ids = np.array([_row_id(documents[owner].digest, offset) for owner, offset in pairs], np.int64)
    order = np.argsort(ids)
    return PackedRows(ids[order], tokens[: firsts.size * length].reshape(-1, length)[order])


def encode_document(tokenizer: Tokenizer, document: Document) -> NDArray[np.uint16]:
    try:
        return tokenizer.encode(document.content.decode())
    except ValueError as error:
        raise InputError(f"data.tokenizer: {error}") from error


def _row_id(digest: bytes, offset: int) -> int:
    hashed = hashlib.blake2b(digest + offset.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(hashed, "little") >> 1  # 63 bits, so it is never negative as int64


def write_rows(store: Store, stage: str, name: str, rows: PackedRows) -> Iterator[tuple[str, int, bytes]]:
    """Write rows to parts in the folder `stage`; yield each one's final name, rows and digest of its content.

    A name says what is in it, so that builds in one place never write over one another.
    """
    for start in range(0, len(rows.ids), PART_ROWS):
        ids, tokens = rows.ids[start : start + PART_ROWS], rows.tokens[start : start + PART_ROWS]
        content = hashlib.blake2b(ids.astype("<i8").tobytes() + tokens.astype("<u2").tobytes(), digest_size=16)
        file = f"{name}-{start // PART_ROWS:05d}-{content.hexdigest()[:16]}.parquet"
        write_part(store, f"{stage}/{file}", ids, tokens)
        yield file, len(ids), content.digest()


def write_part(store: Store, file: str, ids: NDArray[np.int64], tokens: NDArray[np.uint16]) -> None:
    """Write a part as one row group, its tokens as bytes: lists are decoded number by number."""
    column = as_column(tokens)
    schema = pa.schema(
        [pa.field("row_id", pa.int64(), nullable=False), pa.field("tokens", column.type, nullable=False)],
        metadata={"tokens": f"{tokens.shape[1]} numbers a row, uint16, little-endian"},
    )
    table = pa.table({"row_id": ids, "tokens": column}, schema=schema)
    options = {"compression": COMPRESSION, "use_dictionary": False, "write_statistics": ["row_id"]}
    store.write_table(file, table, row_group_size=PART_ROWS, **options)
