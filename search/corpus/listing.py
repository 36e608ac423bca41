"""List each file of a source once: a file, a folder, a glob or a URI, without hidden files."""

import os
import re
import stat
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

from pyarrow import fs

from shoal.cluster.storage import Store, entries_in
from shoal.search.corpus.opening import known

MAGIC = "*?["
SOURCE_CODE = (".py", ".pyi")  # in source code, names that begin with _ are usual
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST_NAMES = 1_000_000  # limit on the names that braces stand for


class FoundFile(NamedTuple):
    """A file; `gone` is true for a link that leads nowhere."""

    path: str
    size: int
    changed: int  # nanoseconds since 1970; 0 if unknown
    same: Any  # equal for all names of one file
    linked: bool = False
    gone: bool = False


class Place(NamedTuple):
    """Where a source lies: a filesystem, and a path on it that may be a glob."""

    filesystem: fs.FileSystem
    path: str

    @property
    def local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)


class Listing(NamedTuple):
    files: list[FoundFile]
    left_out: list[str]  # paths that begin with _, like other programs' markers


def source_place(source: str) -> Place:
    """Return where a source lies; a glob in a URI may be written as in a path."""
    if "://" not in source:
        return Place(fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(source)))
    scheme, _, rest = source.partition("://")
    path, mark, options = rest.partition("?")
    if mark and (scheme == "file" or "=" not in options):
        path, mark, options = rest, "", ""
    quoted = urllib.parse.quote(path, safe="%/:@!$&'()*+,;=~")
    place = Store(f"{scheme}://{quoted}{mark}{options}")
    return Place(place.filesystem, place.root)


def opened(local: bool, filesystem: fs.FileSystem, path: str) -> Any:
    """Open a file for reading; pyarrow can open only names in UTF-8."""
    if not local or path.isprintable():
        return filesystem.open_input_file(path)
    return open(path, "rb")


def opener(place: Place, path: str) -> partial[Any]:
    return partial(opened, place.local, place.filesystem, path)


def files_at(place: Place) -> Listing:
    """Return the files of a place, each under one of its names, in the order of these names."""
    left_out: list[str] = []
    found: dict[Any, FoundFile] = {}
    paths = _alternatives(place)
    for path in paths:
        if len(paths) > 1 and not any(letter in path for letter in MAGIC) and _info(place, path) is None:
            raise ValueError(f"{path} is not there.")
        for file in _files(place._replace(path=path), left_out):
            other = found.get(file.same)
            found[file.same] = file if other is None else min(file, other, key=_rank)
    return Listing(sorted(found.values(), key=lambda file: file.path), left_out)


def _rank(file: FoundFile) -> tuple[bool, bool, int, str]:
    """Return a sort key for the names of one file: known endings first, its own name before links."""
    return not known(file.path), file.linked, len(file.path), file.path


def _alternatives(place: Place) -> list[str]:
    """Return the paths that braces stand for; a file whose name has these braces comes first."""
    if "{" not in place.path or _info(place, place.path) is not None:
        return [place.path]
    return braces(place.path)


def braces(text: str) -> list[str]:
    """Return what `{a,b}` and `{001..120}` stand for, as in a shell; other braces stand for themselves."""
    for begin in (at for at, letter in enumerate(text) if letter == "{"):
        parts, end = _parts(text, begin)
        if parts:
            rests = braces(text[end:])
            found = [text[:begin] + one + rest for part in parts for one in braces(part) for rest in rests]
            if len(found) > MOST_NAMES:
                raise ValueError(f"braces must stand for at most {MOST_NAMES} names, got {len(found)}.")
            return found
    return [text]


def _parts(text: str, begin: int) -> tuple[list[str], int]:
    """Return the parts between the commas of braces that open here, and where the braces end."""
    depth, parts = 0, [""]
    for at, letter in enumerate(text[begin + 1 :], begin + 1):
        if letter == "}" and depth == 0:
            if len(parts) > 1:
                return parts, at + 1
            return (_numbers(parts[0]), at + 1) if RANGE.fullmatch(parts[0]) else ([], 0)
        if letter == "," and depth == 0:
            parts.append("")
            continue
        depth += (letter == "{") - (letter == "}")
        parts[-1] += letter
    return [], 0


def _numbers(text: str) -> list[str]:
    first, last = text.split("..")
    padded = any(len(end) > 1 and end[0] == "0" for end in (first, last))
    width = max(len(first), len(last)) if padded else 1
    low, high = int(first), int(last)
    if abs(high - low) > MOST_NAMES:
        raise ValueError(f"braces must stand for at most {MOST_NAMES} names, got {{{text}}}.")
    step = 1 if low <= high else -1
    return [f"{number:0{width}d}" for number in range(low, high + step, step)]


def _files(place: Place, left_out: list[str]) -> Iterator[FoundFile]:
    info = _info(place, place.path)
    if isinstance(info, FoundFile):
        yield info
    elif info == "folder":
        yield from _below(place, place.path, left_out)
    elif info is None and any(letter in place.path for letter in MAGIC):
        parts = place.path.split("/")
        plain = next(index for index, part in enumerate(parts) if any(letter in part for letter in MAGIC))
        yield from _fitting(place, "/".join(parts[:plain]) or "/", parts[plain:], left_out)


def _info(place: Place, path: str) -> FoundFile | str | None:
    """Return the file at this path, or `folder`, or `other` for neither, or None if nothing is there."""
    if not place.local:
        info = place.filesystem.get_file_info(path)
        return _remote(info)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    return _local(path, status) if stat.S_ISREG(status.st_mode) else "other"


def _local(path: str, status: os.stat_result) -> FoundFile:
    same = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)
    return FoundFile(path, status.st_size, status.st_mtime_ns, same, os.path.islink(path))


def _remote(info: fs.FileInfo) -> FoundFile | str | None:
    if info.is_file:
        return FoundFile(info.path, info.size or 0, info.mtime_ns or 0, info.path)
    return {fs.FileType.NotFound: None, fs.FileType.Directory: "folder"}.get(info.type, "other")


def _children(place: Place, folder: str) -> Iterator[tuple[str, FoundFile | str | None]]:
    """Yield the path and kind of each entry of a folder; a link that leads nowhere is a `gone` file."""
    if not place.local:
        for info in entries_in(place.filesystem, folder):
            yield info.path, _remote(info)
        return
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        try:
            found = _info(place, path)
        except OSError:
            if not os.path.islink(path):
                raise
            found = None  # the links form a circle
        if found is None and os.path.islink(path):
            found = FoundFile(path, 0, 0, path, linked=True, gone=True)
        yield path, found


def hidden(path: str, left_out: list[str]) -> bool:
    """Say whether a name is left out below a folder; names that begin with _ are noted."""
    name = path.rpartition("/")[2]
    if name.startswith("."):
        return True
    if not name.startswith("_") or name.endswith(SOURCE_CODE):
        return False
    if name != "__pycache__":
        left_out.append(path)
    return True


def _below(place: Place, folder: str, left_out: list[str]) -> Iterator[FoundFile]:
    """Yield all files below a folder; a folder with several names is listed once."""
    if not place.local:
        yield from _below_remote(place, folder, left_out)
        return
    waiting, links, seen = [folder], list[str](), set[tuple[int, int]]()
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)
        status = os.stat(here)
        if (mark := (status.st_dev, status.st_ino)) in seen:
            continue
        seen.add(mark)
        for path, found in _children(place, here):
            if hidden(path, left_out):
                continue
            if isinstance(found, FoundFile):
                yield found
            elif found == "folder":
                (links if os.path.islink(path) else waiting).append(path)


def _below_remote(place: Place, folder: str, left_out: list[str]) -> Iterator[FoundFile]:
    noted: set[str] = set()
    for info in place.filesystem.get_file_info(fs.FileSelector(folder, recursive=True)):
        parts = info.path[len(folder) :].strip("/").split("/")
        marked: list[str] = []
        if any(hidden(part, marked) for part in parts):
            noted.update(marked)
        elif isinstance(found := _remote(info), FoundFile):
            yield found
    left_out += sorted(noted)


def _fitting(place: Place, folder: str, patterns: Sequence[str], left_out: list[str]) -> Iterator[FoundFile]:
    """Yield the files below a folder whose path fits: one pattern per level, and `**` for any levels."""
    first, rest = patterns[0], patterns[1:]
    if first == "**" and not rest:
        if _info(place, folder) == "folder":
            yield from _below(place, folder, left_out)
        return
    if first == "**":
        for inner in _folders(place, folder, left_out):
            yield from _fitting(place, inner, rest, left_out)
        return
    for path, found in _named(place, folder, first, left_out):
        if found == "folder":
            yield from _fitting(place, path, rest, left_out) if rest else _below(place, path, left_out)
        elif isinstance(found, FoundFile) and not rest:
            yield found


def _named(
    place: Place, folder: str, pattern: str, left_out: list[str]
) -> Iterable[tuple[str, FoundFile | str | None]]:
    """Return the entries of a folder that fit a pattern: only the one of exactly that name, if it is there."""
    children = list(_children(place, folder))
    exact = [child for child in children if child[0].rpartition("/")[2] == pattern]
    if exact:
        return exact
    return [child for child in children if _fits(child[0], pattern, left_out)]


def _fits(path: str, pattern: str, left_out: list[str]) -> bool:
    """Say whether a name fits. If it begins with . or _, the pattern must be more than wildcards."""
    name = path.rpartition("/")[2]
    if not fnmatchcase(name, pattern) or (name.startswith(".") and not pattern.startswith(".")):
        return False
    return bool(pattern.strip("*?")) or not hidden(path, left_out)


def _folders(place: Place, folder: str, left_out: list[str]) -> Iterator[str]:
    """Yield a folder and all folders below it, each once."""
    waiting, seen = [folder], set[Any]()
    while waiting:
        here = waiting.pop()
        if place.local:
            if not os.path.isdir(here):
                continue
            status = os.stat(here)
            if (mark := (status.st_dev, status.st_ino)) in seen:
                continue
            seen.add(mark)
        yield here
        waiting += [
            path for path, found in _children(place, here) if found == "folder" and not hidden(path, left_out)
        ]
