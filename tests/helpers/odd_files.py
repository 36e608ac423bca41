"""Files of every format, whole and damaged, made by code."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Make = Callable[[Path], Any]
BOM = b"\xef\xbb\xbf"
BIG = b'{"text": "a good text beside a number", "answer": ' + b"7" * 5000 + b"}\n"
DEEP = b'{"text": "a good text in deep company", "tree": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"


def texts(first: int, count: int) -> list[str]:
    """Return texts of about 130 letters, all different."""
    return [f"document {index}: " + f"word{index * 7919} " * 8 + "end" for index in range(first, first + count)]


def lines(first: int, count: int, field: str = "text") -> bytes:
    return "".join(json.dumps({"id": 1, field: text}) + "\n" for text in texts(first, count)).encode()


def objects(first: int, count: int) -> list[dict[str, Any]]:
    return [{"meta": {"source": ["a"]}, "text": text} for text in texts(first, count)]


def array(first: int, count: int, indent: int | None = None) -> bytes:
    return json.dumps(objects(first, count), indent=indent).encode()


def holds(name: str, content: bytes) -> Make:
    def make(folder: Path) -> None:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    return make


def all_of(*makers: Make) -> Make:
    def make(folder: Path) -> None:
        for each in makers:
            each(folder)

    return make


def arrow(data: bytes, codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def tar(members: list[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind) as opened:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            opened.addfile(header, io.BytesIO(content))
    return sink.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(name, content)
    return sink.getvalue()


def samples(first: int, count: int) -> list[tuple[str, bytes]]:
    return [(f"{at:04d}.txt", text.encode()) for at, text in enumerate(texts(first, count))]


def turned(content: bytes, at: int, count: int = 1) -> bytes:
    """Return the content with some bytes turned into others."""
    return content[:at] + bytes(byte ^ 0xFF for byte in content[at : at + count]) + content[at + count :]


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def ipc(table: pa.Table, file: bool = False, rows: int = 50) -> bytes:
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue().to_pybytes()


def strings(values: list[bytes | None]) -> pa.Array:
    """Return a column of type string whose bytes nobody has looked at."""
    plain = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(plain), plain.buffers()[1], plain.buffers()[2], plain.buffers()[0])


def column(first: int, count: int, kind: pa.DataType | None = None) -> pa.Table:
    found = pa.array(texts(first, count))
    return pa.table({"n": list(range(count)), "text": found if kind is None else found.cast(kind)})


def one_bad(count: int) -> pa.Table:
    values = [text.encode() for text in texts(100, count)]
    values[count // 2] = b"\xff\xfe is no text"
    return pa.table({"text": strings(values)})


def link(name: str, to: str) -> Make:
    return lambda folder: os.symlink(to, folder / name)


def bytes_name(name: bytes, content: bytes) -> Make:
    return lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(content)


def unmarked(content: bytes) -> bytes:
    """Return a tar whose first header has the oldest form: without a mark, known by its checksum."""
    header = bytearray(content[:512])
    header[257:265], header[148:156] = bytes(8), b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + content[512:]
