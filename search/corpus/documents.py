"""Which documents a group has: text only, each once in the whole corpus, none of them most of a split."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeGuard

from search.corpus import sources
from search.errors import InputError
from search.sections import Data

FEW = 5  # a split that expects fewer documents than this may well get none
PIECE_BYTES = (512, 65536)  # least and most bytes of a piece of a document that is cut


class Document(NamedTuple):
    digest: bytes
    content: bytes


def gather(group: str, settings: Data, seen: set[bytes]) -> tuple[list[Document], int, int]:
    """Return at most `megabytes` of new documents, and how many were duplicates, and how many no text."""
    room = int(settings.megabytes * 1e6)
    documents: list[Document] = []
    duplicates = skipped = 0
    for content in sources.documents(group, settings):
        if not _is_text(content):
            skipped += 1
            continue
        fresh = _fresh([content], seen)
        duplicates += not fresh
        if fresh and len(content) > room:
            fresh = _fresh([content[:room].decode(errors="ignore").encode()], seen)  # whole characters
        documents += fresh
        room -= sum(len(document.content) for document in fresh)
        if room < 4:  # bytes: a character may need as many
            break
    if not documents:
        raise InputError(
            f"data.groups.{group} ({settings.groups[group]}): no text of its own: {skipped} documents are "
            f"empty or not UTF-8, {duplicates} stand in an earlier group. It must be {sources.ALLOWED}."
        )
    documents, repeated = _cut_long(documents, settings, seen)
    return documents, duplicates + repeated, skipped


def _is_text(content: bytes | None) -> TypeGuard[bytes]:
    if content is None or not content.strip():
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fresh(contents: Iterable[bytes], seen: set[bytes]) -> list[Document]:
    """Return those never seen, which from now on are."""
    fresh = []
    for content in contents:
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            fresh.append(Document(digest, content))
    return fresh


def _cut_long(documents: list[Document], settings: Data, seen: set[bytes]) -> tuple[list[Document], int]:
    """Return documents of which none is most of a split, and how many pieces of long ones were duplicates."""
    total = sum(len(document.content) for document in documents)
    few = math.ceil(FEW / min(settings.validation, settings.test))
    size = min(max(total // (2 * few), PIECE_BYTES[0]), PIECE_BYTES[1])
    limit = size if len(documents) < few else max(total // 20, size)
    kept: list[Document] = []
    repeated = 0
    for document in documents:
        if len(document.content) <= limit:
            kept.append(document)
            continue
        pieces = list(_pieces(document.content, size))
        fresh = _fresh(pieces, seen)
        kept += fresh
        repeated += len(pieces) - len(fresh)
    return kept, repeated


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    """Yield pieces of at most `size` bytes (4 or more), cut after a line or, where none ends, a character."""
    start = 0
    while len(content) - start > size:
        end = content.rfind(b"\n", start, start + size) + 1
        if end <= start:
            end = start + size
            while content[end] & 0xC0 == 0x80:  # a later byte of a character
                end -= 1
        yield content[start:end]
        start = end
    yield content[start:]
