"""A temporary folder for each build; its parts are moved out once all of them are written."""

import contextlib
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from pyarrow import fs

from shoal.cluster.storage import Store, entries_in

PREFIX = ".build-"
FORGOTTEN = 24 * 3600.0  # seconds without a new part; after these a build counts as killed
MOVERS = 8  # threads, since an object store answers slowly


@contextlib.contextmanager
def staging_folder(store: Store) -> Iterator[str]:
    """Give a folder below the corpus, and delete it afterwards, however the build ends."""
    sweep(store, time.time())
    folder = f"{PREFIX}{uuid.uuid4().hex[:12]}"
    store.make(folder)
    try:
        yield folder
    finally:
        store.delete(folder)


def sweep(store: Store, now: float) -> None:
    """Delete the folders of builds that were killed long ago."""
    for name in store.names():
        if not name.startswith(PREFIX):
            continue
        inside = entries_in(store.filesystem, store.path(name), recursive=True)
        infos = [*inside, store.filesystem.get_file_info(store.path(name))]
        if all((info.mtime_ns or now * 1e9) / 1e9 < now - FORGOTTEN for info in infos):
            store.delete(name)


def move(store: Store, stage: str, files: list[str]) -> None:
    """Move parts to their names in the corpus; an existing file of that name has the same content."""
    for folder in dict.fromkeys(file.rpartition("/")[0] for file in files):
        store.make(folder)
    local = isinstance(store.filesystem, fs.LocalFileSystem)

    def one(file: str) -> None:
        if local or not store.exists(file):
            store.filesystem.move(store.path(f"{stage}/{file}"), store.path(file))

    with ThreadPoolExecutor(MOVERS) as threads:
        list(threads.map(one, files))
