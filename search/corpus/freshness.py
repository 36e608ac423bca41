"""Tell whether sources have changed since a corpus was built: it keeps their names, sizes and times."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.listing import Listing
from shoal.search.corpus.manifest import SOURCES, Manifest, name_of
from shoal.search.corpus.quarantine import printable_line
from shoal.search.corpus.sources import listed
from shoal.search.errors import InputError

Listed = dict[str, dict[str, list[int]]]  # group -> path -> size and time of change in nanoseconds


class SourceChange(NamedTuple):
    group: str
    said: str
    gone: bool = False  # the whole source is gone


def sources_of(settings: Data, report: Callable[[str], None]) -> Listed:
    """Return the files of each group as they are now; `installed` has none of the user's."""
    found: Listed = {}
    for group, source in settings.groups.items():
        if source == "installed":
            continue
        _, listing = listed(group, settings)
        found[group] = _now(listing)
        if listing.left_out:
            names, first = len(listing.left_out), printable_line(listing.left_out[0])
            report(
                f"{group}: left out, since markers of other programs begin with _: {names} "
                f"name{'s' * (names > 1)} such as {first}; a glob with more than * in it reads them"
            )
    return found


def _now(listing: Listing) -> dict[str, list[int]]:
    return {printable_line(file.path): [file.size, file.changed] for file in listing.files}


def record_sources(store: Store, manifest: Manifest, found: Listed) -> None:
    store.write_json(f"{SOURCES}/{name_of(manifest)}", found)


def changes(store: Store, manifest: Manifest, settings: Data) -> list[SourceChange]:
    """Return what has changed in the sources since the corpus was built."""
    name = f"{SOURCES}/{name_of(manifest)}"
    if not store.exists(name):  # an earlier version wrote none
        return []
    return list(_changes(store.read_json(name), settings))


def _changes(before: Listed, settings: Data) -> Iterator[SourceChange]:
    for group, then in before.items():
        try:
            _, listing = listed(group, settings)
        except InputError:
            yield SourceChange(group, f"{settings.groups[group]} is gone", gone=True)
            continue
        now = _now(listing)
        said = [
            *_files("new", sorted(now.keys() - then.keys()), now),
            *_files(
                "changed", sorted(path for path in now.keys() & then.keys() if now[path] != then[path]), now
            ),
            *_files("gone", sorted(then.keys() - now.keys()), {}),
        ]
        if said:
            yield SourceChange(group, ", ".join(said))


def _files(what: str, paths: list[str], times: dict[str, list[int]]) -> Iterator[str]:
    if not paths:
        return
    newest = max(paths, key=lambda path: times.get(path, [0, 0])[1])
    since = times.get(newest, [0, 0])[1]
    when = f" since {datetime.fromtimestamp(since / 1e9):%Y-%m-%d %H:%M:%S}" if since > 0 else ""
    yield f"{len(paths)} file{'s are' if len(paths) > 1 else ' is'} {what} ({newest}{when})"
