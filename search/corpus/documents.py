"""The documents of a group: each once in the whole corpus, a sample of its source, none most of a split."""

import bisect
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from shoal.search.config.sections import Data
from shoal.search.corpus import sources
from shoal.search.corpus.opening import bytes_of
from shoal.search.corpus.picking import Pick
from shoal.search.corpus.quarantine import Bad, Quarantine, checked_content
from shoal.search.errors import InputError

SAMPLED_FROM = 8  # a group is a sample of so many times its megabytes, or of all that its source has
FEW = 5  # a split that expects fewer documents than this may easily get none
PIECE_BYTES = (512, 65536)  # least and most bytes of a piece of a document that is cut


class Document(NamedTuple):
    digest: bytes
    content: bytes


class Sample:
    """The documents of a group that fit its megabytes: the first ones by `draw_key` among all that it is shown.

    So they are a random sample, and the same one whatever the order and the files they come in.
    """

    def __init__(self, room: int, seen: set[bytes]):
        self.room = room  # bytes
        self.seen = seen  # digests of the documents of earlier groups
        self.known: set[bytes] = set()
        self.held: list[tuple[bytes, int, bytes]] = []  # digest, place in the source's order, content
        self.size = self.shown = self.duplicates = 0  # bytes that are held, bytes that were shown

    @property
    def full(self) -> bool:
        """Whether so much was shown that a group reads no further."""
        return self.shown >= SAMPLED_FROM * self.room

    def show(self, content: bytes) -> None:
        digest = content_digest(content)
        if digest in self.seen or digest in self.known:
            self.duplicates += 1
            return
        self.known.add(digest)
        self.held.append((digest, len(self.known), content))
        self.size, self.shown = self.size + len(content), self.shown + len(content)
        if self.size > 2 * self.room + PIECE_BYTES[1]:
            self.thin()

    def thin(self) -> None:
        """Drop what does not fit; the first document that fits in part stays."""
        self.held.sort(key=lambda each: draw_key(each[0]))
        places = how_many_fit([len(content) for *_, content in self.held], self.room)
        self.held = self.held[: places + 1]
        self.size = sum(len(content) for *_, content in self.held)

    def documents(self, whole: bool) -> list[Document]:
        """Return the sample in the source's order; text that fits in part is cut, unless taken `whole`."""
        self.thin()
        if self.size > self.room:
            digest, place, content = self.held.pop()
            room = self.room - (self.size - len(content))
            part = (
                b"" if whole else content[:room].decode(errors="ignore").encode()
            )  # no character is cut in two
            digest = content_digest(part)
            if part.strip() and digest not in self.seen | self.known:
                self.held.append((digest, place, part))
        self.held.sort(key=lambda each: each[1])
        self.seen.update(digest for digest, *_ in self.held)
        return [Document(digest, content) for digest, _, content in self.held]


def draw_key(digest: bytes) -> bytes:
    """Return what a document is drawn by: its digest from the other end, since the front decides its split."""
    return digest[::-1]


def how_many_fit(sizes: Sequence[int], room: int) -> int:
    """Return how many of the first ones fit into the room together."""
    return bisect.bisect_right(list(itertools.accumulate(sizes)), room)


def gather(
    group: str, settings: Data, pick: Pick, seen: set[bytes], quarantine: Quarantine
) -> tuple[list[Document], int]:
    """Return at most `megabytes` of new documents, and how many were duplicates; bad ones are put aside."""
    longest = (settings.document_megabytes or math.inf) * 1e6
    sample, good, size = Sample(bytes_of(settings.megabytes), seen), 0, 0
    for source, content in sources.documents(group, settings, pick):
        text = content if isinstance(content, Bad) else checked_content(content, longest, pick.binary)
        if isinstance(text, Bad):
            quarantine.add(source, text)
            continue
        good, size = good + 1, size + len(text)
        sample.show(text)
        if sample.full:
            break
    quarantine.check(good, size, settings.bad_share, settings.groups[group])
    documents, duplicates = sample.documents(pick.whole), sample.duplicates
    if not documents:
        raise no_text(group, settings, duplicates, quarantine)
    if pick.whole:
        return documents, duplicates
    documents, repeated = _cut_long(documents, settings, seen)
    return documents, duplicates + repeated


def content_digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


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
        digest = content_digest(content)
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
