"""Read documents from files, folders, globs and URIs, in an order that favours no part of the source."""

import os
from collections.abc import Iterable, Iterator
from functools import partial

import pyarrow as pa

from shoal.search.config.sections import Data
from shoal.search.corpus.formats import SourceFile, contents, of_system
from shoal.search.corpus.installed import INSTALLED, Entry
from shoal.search.corpus.listing import FoundFile, Listing, Place, files_at, opener, source_place
from shoal.search.corpus.opening import bytes_of, turn
from shoal.search.corpus.picking import Content, Pick
from shoal.search.corpus.quarantine import Bad, printable_line
from shoal.search.corpus.stored_columns import reading_failure
from shoal.search.errors import InputError

ALLOWED = (
    "a file, folder, glob or URI of Parquet (.parquet), JSON (.jsonl, .json), WebDataset (.tar), a saved "
    "Hugging Face dataset (.arrow) or UTF-8 text (any other name), also compressed (.gz, .bz2, .xz, .zst)"
)
BESIDE_ARROW = {
    "dataset_info.json",
    "state.json",
    "dataset_dict.json",
}  # these files of a saved dataset hold no text


def documents(group: str, settings: Data, pick: Pick) -> Iterator[tuple[str, Content]]:
    """Yield the group's texts, neither decoded nor compared, in an order that favours no part of the source.

    A file is opened only when its turn comes, so a caller that has enough text simply stops.
    """
    return read_texts(group, settings, entries(group, settings, pick))


def entries(group: str, settings: Data, pick: Pick) -> list[Entry]:
    """Return what a group is read from, in the order of the turns."""
    if settings.groups[group] == "installed":
        found = list(_installed(group))
    else:
        place, listing = listed(group, settings)
        base = os.path.commonpath([os.path.dirname(file.path) for file in listing.files])
        found = [_entry(place, file, base, settings, pick) for file in listing.files]
    return sorted(found, key=lambda entry: turn(entry.key))


def read_texts(group: str, settings: Data, chosen: Iterable[Entry]) -> Iterator[tuple[str, Content]]:
    """Yield the texts of these, each with the path of its file; InputError for one that may not be read."""
    source = settings.groups[group]
    for entry in chosen:
        try:
            for content in entry.read():
                yield entry.path, content
        except Exception as error:
            if not of_system(error):
                yield entry.path, Bad(reading_failure(error), lost=entry.size)
                continue
            message = f"data.groups.{group} ({source}): cannot read {entry.path}: {error}"
            raise InputError(printable_line(message)) from error


def listed(group: str, settings: Data) -> tuple[Place, Listing]:
    """Return where a group's source lies and its files; raises InputError where there is none."""
    source = settings.groups[group]
    try:
        place = source_place(source)
        found = files_at(place)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            printable_line(f"data.groups.{group} ({source}): cannot be listed: {error}")
        ) from error
    files = _outside(place, found.files, settings)
    saved = {os.path.dirname(file.path) for file in files if file.path.lower().endswith(".arrow")}
    saved |= {
        os.path.dirname(folder) for folder in saved
    }  # a dictionary of datasets has its files one folder above
    files = [
        file
        for file in files
        if os.path.basename(file.path) not in BESIDE_ARROW or os.path.dirname(file.path) not in saved
    ]
    if not files:
        raise InputError(f"data.groups.{group} ({source}): {_nothing(place, found)}. It must be {ALLOWED}.")
    return place, found._replace(files=files)


def _outside(place: Place, files: list[FoundFile], settings: Data) -> list[FoundFile]:
    """Return the files that no build wrote, so that a corpus is never read as its own source."""
    corpus = source_place(settings.corpus)
    if not corpus.filesystem.equals(place.filesystem):
        return files
    real = os.path.realpath if place.local else str
    root = f"{real(corpus.path)}/"
    return [file for file in files if not f"{real(file.path)}".startswith(root)]


def _nothing(place: Place, found: Listing) -> str:
    """Return a message that says why a source has no file."""
    if found.files:
        return "no file there outside of data.corpus"
    left_out = f", but {len(found.left_out)} whose names begin with _" if found.left_out else ""
    if any(letter in place.path for letter in "*?[{"):
        return f"no file fits this pattern{left_out}"
    if place.local and not os.path.lexists(place.path):
        there = place.path
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        return f"no file or folder of this name; what is there of it is {there}"
    if place.local and os.path.isdir(place.path):
        return f"no file in this folder{left_out or ', hidden ones left out'}"
    return "no file or folder of this name that can be read"


def _installed(group: str) -> Iterator[Entry]:
    if group not in INSTALLED:
        raise InputError(
            f"data.groups.{group}: only groups named {', '.join(INSTALLED)} can be 'installed'. "
            f"Rename the group, or give it {ALLOWED}."
        )
    return INSTALLED[group]()


def _entry(place: Place, file: FoundFile, base: str, settings: Data, pick: Pick) -> Entry:
    """Return how to read a file, up to the group's megabytes."""
    key, path = os.path.relpath(file.path, base), printable_line(file.path)
    if file.gone:
        return Entry(key, path, partial(iter, [Bad("a link to a file that is not there")]))
    wanted = bytes_of(settings.megabytes)
    whole = SourceFile(opener(place, file.path), key, file.size, wanted, pick)
    return Entry(key, path, partial(contents, whole), file.size)
