"""A working directory as the zip file that a Ray job is sent with."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pathspec

IGNORE_FILES = (".gitignore", ".rayignore")
LIMIT = 512 * 2**20 - 2**20  # bytes that Ray's head takes in one message, less what wraps them
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files make the same zip, which Ray uploads once


class PackageTooLarge(ValueError):
    """The working directory is more than Ray's job server takes; names the largest files."""


def pack_folder(folder: Path, target: Path, limit: int = LIMIT) -> list[str]:
    """Zip the files that a job needs and return their names below `folder`.

    Left out are what `.gitignore` and `.rayignore` files say, also nested ones, `.git`, and links to
    directories. Raises PackageTooLarge before anything is written.
    """
    sizes = {name: (folder / name).stat().st_size for name in files(folder)}
    if sum(sizes.values()) > limit:
        largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:5]
        named = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
        raise PackageTooLarge(
            f"{folder} holds {sum(sizes.values()) / 2**20:.1f} MiB, but a job may bring "
            f"{limit / 2**20:.0f} MiB. Largest: {named}. "
            f"Name what the job does not need in .gitignore or .rayignore."
        )
    with zipfile.ZipFile(target, "w") as archive:
        for name in sizes:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = (folder / name).stat().st_mode << 16
            archive.writestr(entry, (folder / name).read_bytes())
    return list(sizes)


def files(folder: Path) -> Iterator[str]:
    """Yield the names of all files below a folder that no ignore file names, in a fixed order."""
    specs: dict[str, list[tuple[str, pathspec.GitIgnoreSpec]]] = {}
    for here, folders, names in os.walk(folder):
        place = os.path.relpath(here, folder)
        place = "" if place == "." else f"{place}/"
        rules = [*specs.get(os.path.dirname(place.rstrip("/")), []), *_rules(Path(here), place)]
        specs[place.rstrip("/")] = rules
        folders[:] = sorted(
            name for name in folders if name != ".git" and not _ignored(f"{place}{name}/", rules)
        )
        for name in sorted(names):
            path = Path(here, name)
            if path.is_file() and not _ignored(f"{place}{name}", rules):
                yield f"{place}{name}"


def _rules(folder: Path, place: str) -> list[tuple[str, pathspec.GitIgnoreSpec]]:
    found = [folder / name for name in IGNORE_FILES if (folder / name).is_file()]
    return [
        (place, pathspec.GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8").splitlines()))
        for file in found
    ]


def _ignored(name: str, rules: list[tuple[str, pathspec.GitIgnoreSpec]]) -> bool:
    return any(spec.match_file(name.removeprefix(place)) for place, spec in rules)
