"""One driver writes a run directory at a time: a retry takes the run over, and what it replaced finds out.

KubeRay may start a second attempt while the first one still runs, and a head that comes back may find its
old driver alive. The newest driver owns the directory; an older one fails at its next write. The check
and the write are two operations, so a write already under way may still land; where decisions are
synchronous, it is what the newer driver would write.

A lease says who holds it, and its holder says from time to time that it is still there: so everybody can tell a
run that goes on from one whose driver was killed.
"""

import contextlib
import errno
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shoal.cluster.storage import CannotWrite, Store

LEASE, BEAT = "lease.json", "beat.json"
SECONDS_BETWEEN_BEATS = 15.0
SECONDS_WITHOUT = 60.0  # a driver on another machine that is silent for so long counts as gone


class LeaseLost(RuntimeError):
    """Another driver has taken the run directory over."""


class StandingStore(Store):
    """A run directory as its run writes to it: one that was deleted is not made anew."""

    def make(self, name: str = "") -> None:
        for place in [place for place, sign in enumerate(f"{name}/") if sign == "/" and place]:
            self.filesystem.create_dir(self.path(name[:place]), recursive=False)

    def write(self, name: str, content: bytes | str) -> None:
        try:
            super().write(name, content)
        except CannotWrite as error:
            if error.errno == errno.ENOENT:  # also a folder within it, while all of it is being deleted
                raise self.deleted() from error
            raise

    def deleted(self) -> LeaseLost:
        return LeaseLost(f"{self.uri} was deleted or moved under the run, which stops.")


class LeasedStore(StandingStore):
    """A run directory whose every change needs the lease."""

    def __init__(self, uri: str, owner: str):
        super().__init__(uri)
        self.owner = owner

    def held(self) -> bool:
        return bool((holder(self) or {}).get("owner") == self.owner)

    def check(self) -> None:
        found = holder(self)
        if found is None:
            raise self.deleted()
        if found["owner"] != self.owner:
            raise LeaseLost(
                f"{self.uri} was taken over by another driver (lease {found['epoch']}); this one stops."
            )

    def write(self, name: str, content: bytes | str) -> None:
        self.check()
        super().write(name, content)

    def delete(self, name: str) -> None:
        self.check()
        super().delete(name)


def holder(store: Store) -> dict[str, Any] | None:
    """Return the lease of a directory, or None where there is none."""
    try:
        return dict(store.read_json(LEASE, "owner", "epoch"))
    except FileNotFoundError:
        return None


def take(uri: str) -> LeasedStore:
    """Take the lease of a run directory, from whoever has it."""
    plain, owner = Store(uri), uuid.uuid4().hex
    epoch = plain.read_json(LEASE, "owner", "epoch")["epoch"] + 1 if plain.exists(LEASE) else 1
    process = {"machine": machine(), "process": os.getpid(), "started": started(os.getpid())}
    plain.write_json(LEASE, {"epoch": epoch, "owner": owner, "time": time.time(), **process})
    return LeasedStore(uri, owner)


@contextlib.contextmanager
def holding(uri: str) -> Iterator[LeasedStore]:
    """Take the lease, and say meanwhile that its holder is there."""
    store, over = take(uri), threading.Event()
    threading.Thread(target=_beat, args=(store, over), daemon=True).start()
    try:
        yield store
    finally:
        over.set()


def _beat(store: LeasedStore, over: threading.Event) -> None:
    while not over.wait(SECONDS_BETWEEN_BEATS):
        try:
            store.write_json(BEAT, {"owner": store.owner, "time": time.time()})
        except LeaseLost:
            return
        except OSError:
            continue  # the thread that writes the run's records meets the same error and raises it


def alive(store: Store) -> bool:
    """Say whether the driver that holds a directory's lease still runs: its process, or else its last beat."""
    found = holder(store)
    if found is None:
        return False
    if "time" not in found:
        return True  # it was taken by an older Shoal, which said no more
    if found["machine"] and found["machine"] == machine():
        return found["started"] is not None and started(found["process"]) == found["started"]
    beat = store.read_json(BEAT, "owner", "time") if store.exists(BEAT) else found
    last = beat["time"] if beat["owner"] == found["owner"] else found["time"]
    return bool(time.time() - last < SECONDS_WITHOUT)


def machine() -> str:
    """Return what tells this machine since its boot, and this container, from others; "" if nothing does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def started(process: int) -> int | None:
    """Return when a process of this machine began, in ticks since the boot; None if it has ended."""
    try:
        state, *rest = Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(rest[18])
