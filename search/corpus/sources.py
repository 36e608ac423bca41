"""Documents out of files, folders, globs and URIs, or out of what any Python installation has."""

import hashlib
import importlib
import os
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from cluster.storage import Store
from search.config.sections import Data
from search.corpus.formats import BROKEN, Content, Opens, archive, arrow, parquet, records
from search.corpus.quarantine import EXCERPT, Bad
from search.errors import InputError

ALLOWED = (
    "a file, folder, glob or URI of Parquet (.parquet), JSON lines (.jsonl), WebDataset (.tar, .tar.gz, .tgz), "
    "a Hugging Face dataset that was saved to disk (.arrow) or UTF-8 text (any other name)"
)
BESIDE_ARROW = {"dataset_info.json", "state.json", "dataset_dict.json"}  # of a saved dataset: no text
SPAN = 1 << 20  # bytes read at once of a file that is larger than its group may be
LICENCE = re.compile(r"(licen[cs]e|copying|notice)([-_. ].*)?", re.IGNORECASE)
ROOTS = ("platlib", "purelib", "stdlib")  # of which two may be one: the last name holds
METADATA = ("METADATA", "PKG-INFO")  # of an installed package: headers, then what its README says
NO_PROSE = {".py", ".pyi", ".pyc", ".so", ".json", ".js", ".css", ".html", ".h", ".c"}


class Entry(NamedTuple):
    """Something to read documents from; `key`, its place in the source, decides when its turn comes."""

    key: str
    path: str
    read: Callable[[], Iterator[Content]]
    size: int = 0  # bytes of the file, where they are known


def documents(group: str, settings: Data) -> Iterator[tuple[str, Content]]:
    """Yield the group's texts, neither decoded nor compared, in an order that favours no part of the source.

    Files are opened only when their turn comes, so whoever has enough just stops.
    """
    return read(group, settings, entries(group, settings))


def entries(group: str, settings: Data) -> list[Entry]:
    """Return what a group is read from, in the order of the turns."""
    return sorted(_entries(group, settings), key=lambda entry: _turn(entry.key))


def read(group: str, settings: Data, chosen: Iterable[Entry]) -> Iterator[tuple[str, Content]]:
    """Yield the texts of these, each with the path of its file.

    A file that breaks off is one bad document; one that may not be opened is the user's to put right.
    """
    source = settings.groups[group]
    for entry in chosen:
        try:
            for content in entry.read():
                yield entry.path, content
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno is not None:  # what is undecodable has no number
                message = f"data.groups.{group} ({source}): cannot read {entry.path}: {error}"
                raise InputError(message) from error
            yield entry.path, Bad(f"cannot be read: {str(error)[:EXCERPT]}")


def _turn(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).digest()


def _entries(group: str, settings: Data) -> list[Entry]:
    source = settings.groups[group]
    if source == "installed":
        if group not in INSTALLED:
            raise InputError(
                f"data.groups.{group}: only groups named {', '.join(INSTALLED)} can be 'installed'. "
                f"Rename the group, or give it {ALLOWED}."
            )
        return list(INSTALLED[group]())
    try:
        place = Store(source)
        files = list(_files(place.filesystem, place.root))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"data.groups.{group} ({source}): cannot be listed: {error}") from error
    corpus = Store(settings.corpus)
    if corpus.filesystem.equals(place.filesystem):  # what a build writes is never what the next one reads
        files = [file for file in files if not file.path.startswith(f"{corpus.root}/")]
    saved = {os.path.dirname(file.path) for file in files if file.extension.lower() == "arrow"}
    saved |= {os.path.dirname(folder) for folder in saved}  # of a saved dictionary of datasets
    files = [
        file for file in files if file.base_name not in BESIDE_ARROW or os.path.dirname(file.path) not in saved
    ]
    if not files:
        raise InputError(
            f"data.groups.{group} ({source}): no file there outside of data.corpus. It must be {ALLOWED}."
        )
    base = os.path.commonpath([os.path.dirname(file.path) for file in files])
    size = int(settings.megabytes * 1e6)
    return [_entry(place.filesystem, file, base, settings.text_field, size) for file in files]


def _files(filesystem: fs.FileSystem, path: str) -> Iterator[fs.FileInfo]:
    """Yield the files that a file, a folder or a glob stands for, without hidden ones below a folder."""
    found = filesystem.get_file_info(path)
    if found.type == fs.FileType.NotFound and any(letter in path for letter in "*?["):
        parts = path.split("/")
        plain = next(index for index, part in enumerate(parts) if any(letter in part for letter in "*?["))
        fitting = _fitting(filesystem, "/".join(parts[:plain]) or "/", parts[plain:])
        unique = {file.path: file for file in fitting}
        yield from unique.values()
    elif found.is_file:
        yield found
    elif found.type == fs.FileType.Directory:
        yield from _below(filesystem, path)


def _below(filesystem: fs.FileSystem, folder: str) -> Iterator[fs.FileInfo]:
    for info in filesystem.get_file_info(fs.FileSelector(folder, recursive=True)):
        below = info.path[len(folder) :].strip("/").split("/")
        if info.is_file and not any(part.startswith(".") or part == "__pycache__" for part in below):
            yield info


def _fitting(filesystem: fs.FileSystem, folder: str, patterns: Sequence[str]) -> Iterator[fs.FileInfo]:
    """Yield the files below a folder whose path fits, a pattern a level; `**` stands for any levels."""
    first, rest = patterns[0], patterns[1:]
    if first == "**" and not rest:
        yield from _below(filesystem, folder)
        return
    if first == "**":
        yield from _fitting(filesystem, folder, rest)
    for info in filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
        hidden = info.base_name.startswith(".") and not first.startswith(".")
        if hidden or not fnmatchcase(info.base_name, "*" if first == "**" else first):
            continue
        if info.type == fs.FileType.Directory:
            deeper = patterns if first == "**" else rest
            yield from _fitting(filesystem, info.path, deeper) if deeper else _below(filesystem, info.path)
        elif info.is_file and not rest and first != "**":
            yield info


def _entry(filesystem: fs.FileSystem, file: fs.FileInfo, base: str, field: str, size: int) -> Entry:
    """Return how to read a file of which at most `size` bytes are wanted."""
    key = os.path.relpath(file.path, base)
    stream = partial(filesystem.open_input_file, file.path)
    spans = partial(_spans, stream, key, file.size if file.size > size else None)
    match file.extension.lower():
        case "parquet":
            turn = partial(_turn_within, key)
            return Entry(key, file.path, partial(parquet, stream, turn, field), file.size)
        case "jsonl":
            return Entry(key, file.path, lambda: records(spans(), field), file.size)
        case "arrow":
            return Entry(key, file.path, partial(arrow, stream, field), file.size)
        case "tar" | "tgz":
            return Entry(key, file.path, partial(archive, stream, field), file.size)
        case "gz" if file.base_name.lower().endswith(".tar.gz"):
            return Entry(key, file.path, partial(archive, stream, field), file.size)
    return Entry(key, file.path, spans, file.size)


def _turn_within(key: str, part: str) -> bytes:
    return _turn(f"{key}#{part}")


def _spans(stream: Opens, key: str, size: int | None) -> Iterator[bytes]:
    """Yield a file whole, or, where its size is given, in stretches of lines in the order of their turns."""
    with stream() as opened:
        if size is None:
            yield opened.read()
            return
        for start in sorted(range(0, size, SPAN), key=lambda start: _turn(f"{key}#{start}")):
            if span := _span(opened, start):
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


def _installed(wanted: Callable[[str], bool]) -> Iterator[tuple[str, Path]]:
    """Yield files of the standard library and site-packages whose base name is wanted, each with its key."""
    paths = sysconfig.get_paths()
    roots = {os.path.realpath(paths[name]): name for name in ROOTS}
    for root, name in roots.items():
        for folder, folders, names in os.walk(root):
            # a standard library may hold the packages of an installation other than the running one
            folders[:] = set(folders) - {"__pycache__", "site-packages", "dist-packages"}
            # our own README is in our own metadata: with it, an edit there would change every corpus
            folders[:] = [inner for inner in folders if not inner.startswith("shoal-")]
            for base in (base for base in names if wanted(base) and not base.startswith("__editable__")):
                path = Path(folder, base)
                yield f"{name}/{path.relative_to(root).as_posix()}", path


def _file(path: Path) -> Iterator[Content]:
    try:
        yield path.read_bytes()
    except OSError:  # not the user's choice, so no error of theirs
        yield Bad("cannot be read")


def _description(path: Path) -> Iterator[Content]:
    for content in _file(path):
        if isinstance(content, bytes):
            content = content.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
        yield content


def _is_code(name: str) -> bool:
    return name.endswith(".py")


def _is_licence(name: str) -> bool:
    return LICENCE.fullmatch(name) is not None and os.path.splitext(name)[1].lower() not in NO_PROSE


def _is_prose(name: str) -> bool:
    known = name.endswith((".md", ".rst")) or name in ("README", "README.txt", *METADATA)
    return known and not _is_licence(name)


def _code() -> Iterator[Entry]:
    for key, path in _installed(_is_code):
        yield Entry(key, str(path), partial(_file, path))


def _docs() -> Iterator[Entry]:
    for key, path in _installed(_is_prose):
        yield Entry(key, str(path), partial(_description if path.name in METADATA else _file, path))
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some systems package it apart
        return
    for name, text in topics.items():
        yield Entry(f"topics/{name}", f"pydoc_data.topics[{name!r}]", partial(iter, [text.encode()]))


def _law() -> Iterator[Entry]:
    for key, path in _installed(_is_licence):
        yield Entry(key, str(path), partial(_file, path))
    common = Path("/usr/share/common-licenses")  # of Debian and its kin
    for path in common.iterdir() if common.is_dir() else ():
        yield Entry(f"common/{path.name}", str(path), partial(_file, path))


INSTALLED: dict[str, Callable[[], Iterator[Entry]]] = {"code": _code, "docs": _docs, "law": _law}
