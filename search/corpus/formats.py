"""Read texts from a file of any format, known by its bytes; a broken text becomes a `Bad`."""

import csv
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from shoal.search.corpus.archives import archive_texts
from shoal.search.corpus.opening import (
    ARROW_STREAM,
    KINDS_BY_ENDING,
    ending,
    foreign,
    spans,
    stretches,
    turn,
    whole_or_stretches,
)
from shoal.search.corpus.picking import Content, Pick, short_list
from shoal.search.corpus.quarantine import EXCERPT, Bad
from shoal.search.corpus.records import bare, json_form, records, values
from shoal.search.corpus.stored_columns import reading_failure, rows_of
from shoal.search.corpus.unpacking import HEAD_BYTES, Sips, share_left, unpacked

Opens = Callable[[], Any]  # opens the file
BEFORE_MESSAGE = b"\xff\xff\xff\xff"  # begins a message of an Arrow stream, since 0.15
NO_MESSAGE = b"\x00\x00\x00\x00"  # ends an Arrow stream, in place of a message's length


class SourceFile(NamedTuple):
    """A file of a source: its place in the source, its bytes, how many its group may have, and what is read."""

    opens: Opens
    key: str
    size: int
    wanted: int
    pick: Pick


def contents(file: SourceFile) -> Iterator[Content]:
    """Yield the texts of a file; if it breaks off, the rest is counted by its share of the bytes.

    Only an error of the system is raised.
    """
    with file.opens() as raw:
        found = 0
        packed: list[Sips] = []
        try:
            for content in _contents(raw, file, packed):
                found += content.documents if isinstance(content, Bad) else 1
                yield content
        except Exception as error:
            if of_system(error):
                raise
            left = share_left(raw, file.size, packed[0] if packed else None, error)
            documents = max(round(found * left), 1)
            yield Bad(reading_failure(error), documents=documents, lost=0 if found else file.size)


def of_system(error: Exception) -> bool:
    """Say whether the system refused to read; an error of decoding has no errno."""
    return isinstance(error, OSError) and error.errno is not None


def _contents(raw: Any, file: SourceFile, packed: list[Sips]) -> Iterator[Content]:
    stream, head, sips = unpacked(raw, file.size)
    packed += [sips] if sips else []
    whole = len(head) < HEAD_BYTES
    if whole and not bare(head):
        return  # an empty file has no text, which is no mistake
    kind = KINDS_BY_ENDING.get(ending(file.key), "text")
    if bad := foreign(head, _unzipped(raw) if head.startswith(b"PK") else file.size):
        yield bad._replace(lost=bad.lost or (file.size if kind != "text" else 0))
        return
    if kind == "text" and (bad := separated(head, file)):
        yield bad
        return
    seekable = raw if stream is raw else None
    if head.startswith(b"PAR1"):
        kind = "parquet"
    elif head.startswith(b"ARROW1") or ARROW_STREAM.match(head):
        kind = "arrow"
    elif _is_tar(head):
        kind = "tar"
    form = json_form(head, whole, kind == "json", file.pick) if kind in ("json", "text") else ""
    if kind in ("parquet", "arrow"):
        read = parquet if kind == "parquet" else arrow
        yield from read(seekable or pa.BufferReader(stream.read()), file)
    elif kind == "tar":
        yield from archive_texts(stream, file.pick, partial(_inside, file))
    elif form == "values":
        yield from values(stream.read(), file.pick)
    elif form == "lines":
        parts = _used(stretches(stream), sips) if sips else _parts(seekable, stream, file)
        yield from records(parts, file.pick)
    elif not file.pick.single:
        yield Bad(
            f"plain text, but {file.pick.key} needs records with {short_list(list(file.pick.fields))}", head
        )
    else:
        yield from _parts(seekable, stream, file)


def _inside(archive: SourceFile, name: str, content: bytes) -> Iterator[Content]:
    """Yield the texts of a file that lies in an archive."""
    yield from contents(archive._replace(opens=partial(io.BytesIO, content), key=name, size=len(content)))


def _is_tar(head: bytes) -> bool:
    """Say whether a tar begins here: by its mark, or in the oldest form by the checksum of its first header."""
    if head[257:262] == b"ustar":
        return True
    try:
        return bool(tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape"))
    except tarfile.TarError:
        return False


def separated(head: bytes, file: SourceFile) -> Bad | None:
    """Return what a table of separated values is that has the field for a column: its source is no text."""
    separator = {"csv": ",", "tsv": "\t"}.get(ending(file.key))
    if separator is None:
        return None
    first = bare(head).partition(b"\n")[0].decode(errors="replace")
    names = next(csv.reader([first], delimiter=separator), [])
    field = file.pick.fields[0]
    if field not in (name.strip() for name in names):
        return None
    reason = f"a table of separated values with a column {field!r}: write it as JSON lines or Parquet"
    return Bad(reason, head[:EXCERPT], lost=file.size)


def _unzipped(raw: Any) -> int:
    """Return how many bytes a zip archive unpacks to, or its own size if that is larger."""
    size: int = raw.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(raw) as opened:
            return max(size, sum(member.file_size for member in opened.infolist()))
    except Exception:  # the file is left out whatever is wrong
        return size


def _used(stretches: Iterator[bytes], sips: Sips) -> Iterator[bytes]:
    for stretch in stretches:
        sips.used += len(stretch)
        yield stretch


def _parts(seekable: Any, stream: Any, file: SourceFile) -> Iterator[bytes]:
    """Yield a text whole, or in stretches if it is longer than is wanted."""
    if seekable is None:
        yield from whole_or_stretches(stream, file.wanted)
    elif file.size > file.wanted:
        yield from spans(seekable, file.key, file.size)
    else:
        yield seekable.read()


def parquet(source: Any, file: SourceFile) -> Iterator[Content]:
    """Yield the rows' documents, row groups in the order of their turns; only damaged row groups are lost."""
    opened = pq.ParquetFile(source, page_checksum_verification=True)
    if bad := _not_one(file.pick, opened.schema_arrow.names, opened.metadata.num_rows):
        yield bad
        return
    for index in sorted(range(opened.num_row_groups), key=lambda index: turn(f"{file.key}#{index}")):
        left = opened.metadata.row_group(index).num_rows
        try:
            for batch in opened.iter_batches(1024, row_groups=[index], columns=list(file.pick.fields)):
                for content in rows_of(batch, file.pick):
                    left -= 1
                    yield content
        except Exception as error:
            if of_system(error):
                raise
            yield Bad(reading_failure(error), documents=max(left, 1))


def arrow(source: Any, file: SourceFile) -> Iterator[Content]:
    """Yield the rows' documents of an Arrow file or stream, as Hugging Face's `save_to_disk` writes."""
    source.seek(0)
    if source.read(6) == b"ARROW1":
        yield from _arrow_file(source, file)
        return
    source.seek(0)
    size = source.size() if hasattr(source, "size") else file.size
    while source.tell() < size:  # a file may hold several streams, one after another
        end = BEFORE_MESSAGE + NO_MESSAGE if source.read(4) == BEFORE_MESSAGE else NO_MESSAGE
        source.seek(-4, os.SEEK_CUR)
        stream = pa.ipc.open_stream(source)
        for batch in stream:
            yield from _batch(batch, file.pick)
        place = source.tell()
        source.seek(max(place - 8, 0))
        if not source.read(8).endswith(end):
            yield Bad("an Arrow stream must end in its mark, but this one breaks off")


def _arrow_file(source: Any, file: SourceFile) -> Iterator[Content]:
    opened = pa.ipc.open_file(source)
    most = 1
    for index in range(opened.num_record_batches):
        try:
            batch = opened.get_batch(index)
        except Exception as error:
            if of_system(error):
                raise
            yield Bad(reading_failure(error), documents=most)  # its number of rows cannot be read either
        else:
            most = max(most, batch.num_rows)
            yield from _batch(batch, file.pick)


def _batch(batch: pa.RecordBatch, pick: Pick) -> Iterator[Content]:
    if bad := _not_one(pick, batch.schema.names, batch.num_rows):
        yield bad
        return
    left = batch.num_rows
    try:
        for content in rows_of(batch, pick):
            left -= 1
            yield content
    except Exception as error:
        yield Bad(reading_failure(error), documents=max(left, 1))


def _not_one(pick: Pick, names: list[str], rows: int) -> Bad | None:
    """Return what is wrong if a column is missing, or there twice."""
    field = next((field for field in pick.fields if names.count(field) != 1), None)
    if field is None:
        return None
    if field in names:
        return Bad(f"{names.count(field)} columns are called {field!r} ({pick.key})", documents=max(rows, 1))
    return Bad(pick.missing("column", field, names), documents=rows)
