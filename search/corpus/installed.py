"""Read documents that every Python installation has: code, documentation and licences, with no download."""

import importlib
import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from shoal.search.corpus.picking import Content
from shoal.search.corpus.quarantine import Bad

LICENCE = re.compile(r"(licen[cs]e|copying|notice)([-_. ].*)?", re.IGNORECASE)
ROOTS = ("platlib", "purelib", "stdlib")  # two of these may be one folder, which then goes by the last name
METADATA = ("METADATA", "PKG-INFO")  # files of an installed package: headers, then its README
NO_PROSE = {".py", ".pyi", ".pyc", ".so", ".json", ".js", ".css", ".html", ".h", ".c"}


class Entry(NamedTuple):
    """A file to read documents from; a hash of `key`, its place in the source, decides when its turn comes."""

    key: str
    path: str
    read: Callable[[], Iterator[Content]]
    size: int = 0  # bytes of the file; 0 where they are not known


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
        content = path.read_bytes()
    except OSError:  # the user did not choose these files, so an unreadable one is no error
        yield Bad("cannot be read")
        return
    if content.strip():  # many packages have empty modules, which is no mistake
        yield content


def _description(path: Path) -> Iterator[Content]:
    for content in _file(path):
        if isinstance(content, bytes):
            content = content.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
        if not isinstance(content, bytes) or content.strip():
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
    except ImportError:  # some systems have it in a package of its own
        return
    for name, text in topics.items():
        yield Entry(f"topics/{name}", f"pydoc_data.topics[{name!r}]", partial(iter, [text.encode()]))


def _law() -> Iterator[Entry]:
    for key, path in _installed(_is_licence):
        yield Entry(key, str(path), partial(_file, path))
    common = Path("/usr/share/common-licenses")  # Debian and its relatives have it
    for path in common.iterdir() if common.is_dir() else ():
        yield Entry(f"common/{path.name}", str(path), partial(_file, path))


INSTALLED: dict[str, Callable[[], Iterator[Entry]]] = {"code": _code, "docs": _docs, "law": _law}
