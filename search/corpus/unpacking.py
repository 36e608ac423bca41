"""Decompress a file as its first bytes say, whatever its name is."""

import bz2
import contextlib
import gzip
import lzma
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa

HEAD_BYTES = 1 << 16  # a file's kind is found in so many first bytes
CHUNK = 1 << 16  # most bytes of a compressed file that are read at once
SIP = 1 << 12  # the same for a stream that returns either all bytes asked for or none
READ_AHEAD = 1 << 20  # bytes read at once from the disk or the network
GZIP = re.compile(rb"\x1f\x8b")
MOST_PACKED = 1032  # one byte of gzip stands for so many bytes at most
LAYERS = 3  # a file may be compressed so many times over


class Sips:
    """A file that is given out in small portions, so that it is known how far a broken one could be read.

    Its reader cannot close it, which pyarrow's does.
    """

    closed = False

    def __init__(self, file: Any, portion: int):
        self.file, self.portion = file, portion
        self.given = 0  # bytes of the file
        self.used = 0  # decompressed bytes that were searched for texts
        self.ahead, self.place = b"", 0

    def read(self, size: int = -1) -> bytes:
        if self.place == len(self.ahead):
            self.ahead, self.place = self.file.read(READ_AHEAD), 0
        end = self.place + (self.portion if size < 0 else min(size, self.portion))
        sip = self.ahead[self.place : end]
        self.place, self.given = self.place + len(sip), self.given + len(sip)
        return sip

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Leave the file open."""


Maker = Callable[[Any], Any]


class Unpacked(NamedTuple):
    """A stream of a file's bytes as they were before any compression, and the first of them."""

    stream: Any
    head: bytes
    packed: Sips | None  # the compressed file, in portions; None for a plain one


def _gunzipped(stream: Any) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=stream, mode="rb")


def _arrow_codec(name: str) -> Maker:
    return lambda stream: pa.CompressedInputStream(pa.PythonFile(stream, "r"), name)


PACKED: list[tuple[re.Pattern[bytes], Maker]] = [
    (GZIP, _gunzipped),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"), bz2.BZ2File),
    (re.compile(rb"\xfd7zXZ\x00|\x5d\x00\x00"), lzma.LZMAFile),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL), _arrow_codec("zstd")),
    (re.compile(rb"\x04\x22\x4d\x18"), _arrow_codec("lz4")),
]


def unpacked(file: Any, size: int) -> Unpacked:
    """Return a file of so many bytes without its compressions."""
    makers: list[Maker] = []
    while True:
        head = _first(_through(file, size, makers).stream)
        make = next((make for magic, make in PACKED if magic.match(head)), None)
        if make is None or len(makers) == LAYERS:
            return _through(file, size, makers)._replace(head=head)
        makers.append(make)


def _through(file: Any, size: int, makers: list[Maker]) -> Unpacked:
    file.seek(0)
    stream, packed = file, None
    for make in makers:
        sips = Sips(stream, min(max(size // 256, 64), SIP))
        packed = packed or sips
        stream = make(sips)
    return Unpacked(stream, b"", packed)


def _first(stream: Any) -> bytes:
    """Return the first bytes of a stream; fewer if it breaks off."""
    head = b""
    try:
        while len(head) < HEAD_BYTES and (chunk := next_bytes(stream)):
            head += chunk
    except Exception:
        if not head:
            raise
    return head[:HEAD_BYTES]


def next_bytes(stream: Any) -> bytes:
    """Return a few bytes of a stream: if it breaks off here, little is lost."""
    content: bytes = stream.read(SIP) if isinstance(stream, pa.NativeFile) else stream.read1(CHUNK)
    return content


def share_left(file: Any, size: int, packed: Sips | None, error: Exception) -> float:
    """Return how much of a file is lost behind what was read of it, as a multiple of that.

    Where gzip is found to be wrong at its very end, its last bytes say how long the text has been.
    """
    place = file.tell() if packed is None else packed.given
    if not str(error).startswith(("CRC check", "Incorrect length")) or not GZIP.match(_at(file, 0, 2)):
        return max(size - place, 0) / max(place, 1)
    whole = int.from_bytes(_at(file, size - 4, 4), "little")
    read = packed.used if packed and packed.used else _readable(_through(file, size, [_gunzipped]).stream)
    return max(min(whole, size * MOST_PACKED) / max(read, 1) - 1, 0)


def _at(file: Any, place: int, count: int) -> bytes:
    file.seek(place)
    content: bytes = file.read(count)
    return content


def _readable(stream: Any) -> int:
    """Return how many bytes a stream gives before it breaks off."""
    read = 0
    with contextlib.suppress(Exception):  # it is known to be broken
        while chunk := next_bytes(stream):
            read += len(chunk)
    return read
