"""Files on any `pyarrow.fs` filesystem: written whole or not at all."""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

PART = re.compile(r"part-\d+\.parquet")  # a part of a run's table; other files in its folder are not ours
TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}")  # a write that is under way, or was killed
LOOKS_AGAIN = 10  # at a folder that comes and goes meanwhile


class BrokenFile(ValueError):
    """A file of ours does not hold what was written: its path, and why."""

    def __str__(self) -> str:
        return "{} is broken: {}".format(*self.args)

    @property
    def path(self) -> str:
        return str(self.args[0])


class CannotWrite(OSError):
    """A file could not be written: the disk is full, or nobody may write there. One line says where and why."""

    def __init__(self, place: str, error: BaseException):
        number = getattr(error, "errno", None)
        plain = getattr(error, "strerror", None) or str(error)
        self.place, reason = place, os.strerror(number) if number else plain.splitlines()[0]
        super().__init__(number, reason)

    def __str__(self) -> str:
        return f"{self.place} cannot be written: {self.strerror}."

    def __reduce__(self) -> tuple[Any, ...]:
        return CannotWrite, (self.place, OSError(self.errno, self.strerror))  # as tasks and actors hand it on


class Store:
    """One directory on a local disk or behind a URI (`s3://`, `gs://`, `hdfs://`).

    Names are relative to the directory. Every write goes to a temporary name first and is then
    renamed, so a reader, or a run that resumes after SIGKILL, never meets half a file.
    """

    def __init__(self, uri: str):
        self.uri = uri
        if "://" in uri:
            self.filesystem, self.root = fs.FileSystem.from_uri(uri)
        else:
            self.filesystem, self.root = fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(uri))

    def path(self, name: str = "") -> str:
        return f"{self.root}/{name}" if name else self.root

    def make(self, name: str = "") -> None:
        self.filesystem.create_dir(self.path(name), recursive=True)

    def exists(self, name: str = "") -> bool:
        return self.filesystem.get_file_info(self.path(name)).type != fs.FileType.NotFound

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted base names in a folder; none if the folder is not there."""
        return sorted(info.base_name for info in entries_in(self.filesystem, self.path(folder)))

    def folders(self, folder: str = "") -> list[str]:
        """Return the sorted base names of the folders in a folder."""
        found = entries_in(self.filesystem, self.path(folder))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def write(self, name: str, content: bytes | str) -> None:
        self.write_pieces(name, [content.encode() if isinstance(content, str) else content])

    def write_pieces(self, name: str, content: Iterable[bytes | memoryview]) -> None:
        """Write pieces one after another, so that the whole need not be in memory."""
        inner, _, base = name.rpartition("/")
        temporary = f"{self.path(inner)}/.{base}.{uuid.uuid4().hex[:8]}"
        try:
            self.make(inner)
            with self.filesystem.open_output_stream(temporary) as stream:
                for piece in content:
                    stream.write(piece)
            self.filesystem.move(temporary, self.path(name))
        except BaseException as error:
            with contextlib.suppress(OSError, pa.ArrowException):  # it may never have come about
                self.filesystem.delete_file(temporary)
            if isinstance(error, OSError | pa.ArrowException):
                raise CannotWrite(self.path(name), error) from error
            raise

    def read(self, name: str) -> bytes:
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return stream.read()

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with what is in it; others may have done so before or meanwhile."""
        kind = self.filesystem.get_file_info(self.path(name)).type
        with contextlib.suppress(FileNotFoundError):
            if kind == fs.FileType.Directory:
                self.filesystem.delete_dir(self.path(name))
            elif kind != fs.FileType.NotFound:
                self.filesystem.delete_file(self.path(name))

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, json.dumps(value, indent=2) + "\n")

    def read_json(self, name: str, *keys: str) -> Any:
        """Read an object of JSON that has these keys."""
        with self.guarded(name):
            found = json.loads(self.read(name))
            if not isinstance(found, dict):
                raise ValueError("it is no object of JSON")
            if missing := [key for key in keys if key not in found]:
                raise ValueError(f"it has no {missing[0]}")
            return found

    @contextlib.contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Raise BrokenFile for whatever makes a file unreadable that is there."""
        try:
            yield
        except (FileNotFoundError, BrokenFile):
            raise
        except (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException) as error:
            raise BrokenFile(self.path(name), reason(error)) from error

    def write_table(self, name: str, table: pa.Table, **options: Any) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        self.write(name, sink.getvalue().to_pybytes())

    def read_table(self, name: str, **options: Any) -> pa.Table:
        """Read one Parquet file, or a folder of parts in the order of their names."""
        if self.filesystem.get_file_info(self.path(name)).type != fs.FileType.Directory:
            return self.read_part(name, **options)
        names = [each for each in self.names(name) if each.endswith(".parquet") and each[0] != "."]
        tables = [self.read_part(f"{name}/{part}", **options) for part in names]
        if not tables:
            raise FileNotFoundError(f"{self.path(name)} holds no Parquet parts.")
        with self.guarded(name):
            return pa.concat_tables(tables, promote_options="default")

    def parts(self, folder: str) -> list[str]:
        """Return the names of the parts of a run's table, in their order."""
        return [name for name in self.names(folder) if PART.fullmatch(name)]

    def read_part(self, name: str, **options: Any) -> pa.Table:
        """Read one Parquet file; `pq.read_table` looks for a data set first, for 1 MiB a third of its time."""
        with self.guarded(name), self.filesystem.open_input_file(self.path(name)) as file:
            return pq.ParquetFile(file, pre_buffer=True).read(**options)


def entries_in(filesystem: fs.FileSystem, folder: str, recursive: bool = False) -> list[fs.FileInfo]:
    """Return what lies in a folder; nothing if the folder is not there.

    pyarrow lists a folder and, when that fails, asks whether it is there. A folder that somebody makes in
    between is therefore "not found" although absence is allowed, so that answer is asked for anew.
    """
    selector = fs.FileSelector(folder, allow_not_found=True, recursive=recursive)
    for _ in range(LOOKS_AGAIN - 1):
        with contextlib.suppress(FileNotFoundError):
            return list(filesystem.get_file_info(selector))
    return list(filesystem.get_file_info(selector))


def reason(error: BaseException) -> str:
    """Return in one line why a file cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return "it is empty" if not error.doc.strip() else "it is not JSON, or is cut off"
    return str(getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__)
