"""Files on any `pyarrow.fs` filesystem: written whole or not at all."""

import contextlib
import json
import os
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs


class CannotWrite(OSError):
    """A file could not be written: the disk is full, or nobody may write there. One line says where and why."""

    def __init__(self, place: str, error: BaseException):
        number = getattr(error, "errno", None)
        self.place, reason = place, os.strerror(number) if number else str(error).splitlines()[0]
        super().__init__(number, reason)

    def __str__(self) -> str:
        return f"{self.place} cannot be written: {self.strerror}."


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
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def write(self, name: str, content: bytes | str) -> None:
        content = content.encode() if isinstance(content, str) else content
        folder, _, base = self.path(name).rpartition("/")
        temporary = f"{folder}/.{base}.{uuid.uuid4().hex[:8]}"
        try:
            self.filesystem.create_dir(folder, recursive=True)
            with self.filesystem.open_output_stream(temporary) as stream:
                stream.write(content)
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
        if self.filesystem.get_file_info(self.path(name)).type == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path(name))
        elif self.exists(name):
            self.filesystem.delete_file(self.path(name))

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, json.dumps(value, indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def write_table(self, name: str, table: pa.Table, **options: Any) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        self.write(name, sink.getvalue().to_pybytes())

    def read_table(self, name: str, **options: Any) -> pa.Table:
        """Read one Parquet file, or a folder of parts in the order of their names."""
        if self.filesystem.get_file_info(self.path(name)).type != fs.FileType.Directory:
            return self.read_part(name, **options)
        parts = [part for part in self.names(name) if not part.startswith(".")]
        tables = [self.read_part(f"{name}/{part}", **options) for part in parts]
        if not tables:
            raise FileNotFoundError(f"{self.path(name)} holds no Parquet parts.")
        return pa.concat_tables(tables, promote_options="default")

    def read_part(self, name: str, **options: Any) -> pa.Table:
        """Read one Parquet file; `pq.read_table` looks for a data set first, for 1 MiB a third of its time."""
        with self.filesystem.open_input_file(self.path(name)) as file:
            return pq.ParquetFile(file, pre_buffer=True).read(**options)
