"""The documents of a group: text only, each once in the whole corpus, none of them most of a split."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shoal.search.config.sections import Data
from shoal.search.corpus import sources
from shoal.search.corpus.opening import bytes_of
from shoal.search.corpus.quarantine import Bad, Quarantine, checked_content
from shoal.search.errors import InputError

FEW = 5  # a split that expects fewer documents than this may easily get none
PIECE_BYTES = (512, 65536)  # least and most bytes of a piece of a document that is cut


class Document(NamedTuple):
    digest: bytes
    content: bytes


def gather(group: str, settings: Data, seen: set[bytes], quarantine: Quarantine) -> tuple[list[Document], int]:
    """Return at most `megabytes` of new documents, and how many were duplicates; bad ones are put aside."""
    room = bytes_of(settings.megabytes)
    longest = (settings.document_megabytes or math.inf) * 1e6
    documents: list[Document] = []
    duplicates = good = size = 0
    for source, content in sources.documents(group, settings):
        text = content if isinstance(content, Bad) else checked_content(content, longest)
        if isinstance(text, Bad):
            quarantine.add(source, text)
            continue
        good, size = good + 1, size + len(text)
        fresh = _fresh([text], seen)
        duplicates += not fresh
        if fresh and len(text) > room:
            fresh = _fresh([text[:room].decode(errors="ignore").encode()], seen)  # no character is cut in two
        documents += fresh
        room -= sum(len(document.content) for document in fresh)
        if room < 4:  # bytes: the longest character has 4
            break
    quarantine.check(good, size, settings.bad_share, settings.groups[group])
    if not documents:
        raise no_text(group, settings, duplicates, quarantine)
    documents, repeated = _cut_long(documents, settings, seen)
    return documents, duplicates + repeated


def no_text(group: str, settings: Data, duplicates: int, quarantine: Quarantine) -> InputError:
    """Return what is wrong with a group that has no document."""
    why = "all its files are empty"
    if duplicates:
        why = f"all of its {duplicates} documents stand in an earlier group"
    if quarantine.documents:
        why = f"{quarantine.documents} documents cannot be used: {quarantine.said()}"
    return InputError(
        f"data.groups.{group} ({settings.groups[group]}): no text of its own: {why}. "
        f"It must be {sources.ALLOWED}."
    )


def _fresh(contents: Iterable[bytes], seen: set[bytes]) -> list[Document]:
    """Return the documents that were never seen, and mark them as seen."""
    fresh = []
    for content in contents:
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            fresh.append(Document(digest, content))
    return fresh


def _cut_long(documents: list[Document], settings: Data, seen: set[bytes]) -> tuple[list[Document], int]:
    """Cut long documents, so that none is most of a split; also return how many pieces were duplicates."""
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
        parts = list(cut_into_pieces(document.content, size))
        fresh = _fresh(parts, seen)
        kept += fresh
        repeated += len(parts) - len(fresh)
    return kept, repeated


def cut_into_pieces(content: bytes, size: int) -> Iterator[bytes]:
    """Yield pieces of at most `size` bytes (4 or more), cut after a line or, where none ends, a character."""
    start = 0
    while len(content) - start > size:
        end = content.rfind(b"\n", start, start + size) + 1
        if end <= start:
            end = start + size
            while content[end] & 0xC0 == 0x80:  # a byte within a character
                end -= 1
        yield content[start:end]
        start = end
    yield content[start:]
