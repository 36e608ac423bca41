"""What a file is by its name and its first bytes, and how its text is read."""

import hashlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from shoal.search.corpus.quarantine import Bad
from shoal.search.corpus.unpacking import HEAD_BYTES, next_bytes

SPAN = 1 << 20  # bytes read at once of a file that is larger than its group may be
PACKED_ENDINGS = {"gz", "gzip", "bz2", "xz", "lzma", "zst", "zstd", "lz4"}
KINDS_BY_ENDING = {
    **dict.fromkeys(("parquet", "pq", "parq"), "parquet"),
    **dict.fromkeys(("arrow", "ipc", "feather"), "arrow"),
    **dict.fromkeys(("tar", "tgz", "tbz", "tbz2", "txz", "tzst"), "tar"),
    **dict.fromkeys(("json", "jsonl", "ndjson", "jsonlines", "jl"), "json"),
}
DECOMPRESS = "decompress it"
FOREIGN: list[
    tuple[re.Pattern[bytes], str, bool]
] = [  # magic bytes, what they mean, whether it holds an unknown number of documents
    (re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)"), f"a zip archive: {DECOMPRESS}", True),
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), f"a 7-Zip archive: {DECOMPRESS}", True),
    (re.compile(rb"Rar!\x1a\x07"), f"a RAR archive: {DECOMPRESS}", True),
    (re.compile(rb"!<arch>\n"), f"an ar archive: {DECOMPRESS}", True),
    (re.compile(rb"\x1f[\x9d\xa0]"), f"compressed by Unix compress (.Z): {DECOMPRESS}", True),
    (re.compile(rb"\xff\x06\x00\x00sNaPpY"), f"compressed by Snappy: {DECOMPRESS}", True),
    (re.compile(rb"LZIP\x01"), f"compressed by lzip: {DECOMPRESS}", True),
    (re.compile(rb"WARC/[01]\."), "a web archive (WARC): give the text of its pages", True),
    (re.compile(rb"PARE"), "encrypted Parquet: write it without encryption", True),
    (re.compile(rb"ORC[^\x09-\x7e]", re.DOTALL), "an ORC file: write it as Parquet", True),
    (re.compile(rb"Obj\x01"), "an Avro file: write it as Parquet", True),
    (re.compile(rb"FEA1"), "a Feather file of version 1: write it as Parquet", True),
    (re.compile(rb"\x89HDF\r\n\x1a\n"), "an HDF5 file: write its text as Parquet", True),
    (re.compile(rb"SQLite format 3\x00"), "an SQLite database: write its text as Parquet", True),
    (re.compile(rb"\x93NUMPY"), "a numpy array: give text", False),
    (re.compile(rb"%PDF-"), "a PDF document: give its text", False),
    (re.compile(rb"\xff\xfe|\xfe\xff|\x00\x00\xfe\xff"), "UTF-16 or UTF-32: write it as UTF-8", False),
]
POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:[^\n]*\n)*?size (\d+)")
ANNEXED = re.compile(rb"/annex/objects/[^\n]+\n?$")
ARROW_STREAM = re.compile(rb"\xff\xff\xff\xff..[\x00-\x7f]\x00", re.DOTALL)
OFFICE = re.compile(rb"PK\x03\x04.{26}(\[Content_Types\]\.xml|mimetype|_rels/|META-INF/)", re.DOTALL)


def ending(name: str) -> str:
    """Return what a name says of its file, in lower case and without the ending of a compression."""
    parts = name.rpartition("/")[2].lower().split(".")[1:]
    while len(parts) > 1 and parts[-1] in PACKED_ENDINGS:
        parts.pop()
    return parts[-1] if parts else ""


def known(name: str) -> bool:
    """Say whether a name's ending says how its file is read."""
    return ending(name) in KINDS_BY_ENDING or ending(name) in PACKED_ENDINGS


def foreign(head: bytes, size: int) -> Bad | None:
    """Return what kind of file this is, by its first bytes, if Shoal does not read that kind."""
    if pointer := POINTER.match(head):
        reason = "a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`"
        return Bad(reason, head[:HEAD_BYTES], lost=int(pointer[1]) if len(pointer[1]) < 18 else size)
    if ANNEXED.match(head):
        return Bad("a pointer of git-annex, not the file itself: fetch it with `git annex get`", head)
    for magic, reason, many in FOREIGN:
        if magic.match(head):
            return Bad(reason, head, lost=size if many and not OFFICE.match(head) else 0)
    return None


def bytes_of(megabytes: float) -> int:
    return int(min(megabytes * 1e6, sys.maxsize))  # megabytes may be infinite


def turn(key: str) -> bytes:
    """Return the sort key of a file or row group: a hash of its place in the source."""
    return hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).digest()


def spans(raw: Any, key: str, size: int) -> Iterator[bytes]:
    """Yield a file in stretches of lines in the order of their turns."""
    for start in sorted(range(0, size, SPAN), key=lambda start: turn(f"{key}#{start}")):
        if span := _span(raw, start):
            yield span


def _span(stream: Any, start: int) -> bytes:
    """Return the whole lines after the first end of a line at or past `start`, up to the next span's first."""
    stream.seek(start)
    content: bytes = stream.read(SPAN + 1)
    begin = content.find(b"\n") + 1
    if start and not begin:
        return b""
    while not content.endswith(b"\n") and (more := stream.read(SPAN)):
        content += more[: more.find(b"\n") + 1] or more
    return content[begin:] if start else content


def stretches(stream: Any) -> Iterator[bytes]:
    """Yield a stream in stretches of whole lines as they come, so that all before a break is kept."""
    rest: list[bytes] = []
    while chunk := next_bytes(stream):
        lines, end, begun = chunk.rpartition(b"\n")
        if end:
            yield b"".join([*rest, lines, end])
            rest = []
        rest.append(begun)
    if any(rest):
        yield b"".join(rest)


def whole_or_stretches(stream: Any, wanted: int) -> Iterator[bytes]:
    """Yield a stream's text whole, or in stretches of lines if it is more than its group may have."""
    found: list[bytes] = []
    size = 0
    coming = stretches(stream)
    for stretch in coming:
        found.append(stretch)
        size += len(stretch)
        if size > wanted:
            yield from found
            yield from coming
            return
    yield b"".join(found)
