"""Texts out of one file of each format; what is no text comes as `Bad`, and reading goes on."""

import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from search.corpus.quarantine import EXCERPT, Bad

Content = bytes | Bad
Opens = Callable[[], Any]  # opens the file
BROKEN = (OSError, ValueError, EOFError, pa.ArrowException, tarfile.TarError, zlib.error)  # what reading raises


def records(spans: Iterable[Content], field: str) -> Iterator[Content]:
    """Yield the field of each line of JSON."""
    for span in spans:
        if isinstance(span, Bad):
            yield span
            continue
        for line in span.split(b"\n"):
            if line.strip():
                yield record(line, field)


def record(line: bytes, field: str) -> Content:
    try:
        found = json.loads(line.decode())
    except UnicodeDecodeError:
        return Bad("not UTF-8", line[:EXCERPT])
    except json.JSONDecodeError:
        return Bad("each line must be JSON", line[:EXCERPT])
    if not isinstance(found, dict):
        return Bad("each line must be a JSON object", line[:EXCERPT])
    if field not in found:
        return Bad(f"no field {field!r}; set data.text_field to one of {sorted(found)}", line[:EXCERPT])
    return utf8(found[field], field)


def parquet(opens: Opens, turn: Callable[[str], bytes], field: str) -> Iterator[Content]:
    """Yield a column's values, row groups in the order of their turns."""
    with opens() as opened:
        file = pq.ParquetFile(opened)
        names = file.schema_arrow.names
        if field not in names:
            yield no_column(field, names, file.metadata.num_rows)
            return
        for index in sorted(range(file.num_row_groups), key=lambda index: turn(str(index))):
            for batch in file.iter_batches(1024, row_groups=[index], columns=[field]):
                yield from column(batch, field)


def arrow(opens: Opens, field: str) -> Iterator[Content]:
    """Yield a column's values of an Arrow stream, as `save_to_disk` of Hugging Face's datasets writes it."""
    with opens() as opened:
        stream = pa.ipc.open_stream(opened)
        for batch in stream:
            if field not in stream.schema.names:
                yield no_column(field, stream.schema.names, batch.num_rows)
            else:
                yield from column(batch, field)


def archive(opens: Opens, field: str) -> Iterator[Content]:
    """Yield the text of each sample of a WebDataset: files of one tar, in a row, that share a name.

    A sample's text is its member `.txt` or `.FIELD`, else the field of its member `.json`.
    """
    with opens() as opened, tarfile.open(fileobj=opened, mode="r|*") as tar:
        name, parts = "", dict[str, bytes]()
        for member in tar:
            folder, base = os.path.split(member.name)
            key, _, extension = base.partition(".")
            if not member.isfile() or base.startswith("."):
                continue
            if (key := f"{folder}/{key}") != name and parts:
                yield sample(parts, field)
                parts = {}
            file = tar.extractfile(member)
            assert file is not None, "a plain file"
            name, parts[extension.lower()] = key, file.read()
        if parts:
            yield sample(parts, field)


def sample(parts: dict[str, bytes], field: str) -> Content:
    for extension in (field, "txt"):
        if extension in parts:
            return parts[extension]
    if "json" in parts:
        return record(parts["json"], field)
    return Bad(f"no member .txt, .{field} or .json in a sample of {sorted(parts)}")


def column(batch: pa.RecordBatch, field: str) -> Iterator[Content]:
    for value in batch.column(field).to_pylist():
        yield utf8(value, field)


def no_column(field: str, names: list[str], rows: int) -> Bad:
    return Bad(f"no column {field!r}; set data.text_field to one of {names}", documents=rows)


def utf8(value: object, field: str) -> Content:
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")  # a lone surrogate of JSON is no text: put aside later
    if isinstance(value, bytes):
        return value
    if value is None:
        return Bad("empty")
    reason = f"{field!r} (data.text_field) must hold text, got {type(value).__name__}"
    return Bad(reason, repr(value)[:EXCERPT].encode(errors="replace"))
