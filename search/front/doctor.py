"""What of this machine would stand in a run's way: `shoal doctor`. It starts nothing, and imports little."""

import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from shoal.search.errors import InputError

GOOD, ODD, BAD = "ok", "note", "error"
LEAST_VERSIONS = {"ray": (2, 60), "torch": (2, 6), "pyarrow": (17,), "numpy": (2, 0), "pydantic": (2, 9)}
# package -> the extra that installs it
EXTRAS = {
    "transformers": "hf",
    "lightgbm": "boosting",
    "datasketch": "duplicates",
    "Pillow": "images",
    "nixl": "direct",
    "mlflow-skinny": "mlflow",
    "wandb": "wandb",
}
GIGABYTE = 2**30
ROOM = 2 * GIGABYTE  # an embedded Ray, its workers and a small model
OPEN_FILES = 4096  # Ray's processes hold sockets to one another
SECONDS_FOR_GPUS = 10.0


class Finding(NamedTuple):
    """One line of the doctor's: an error stands in the way of any run, a note may do so."""

    kind: str
    about: str
    said: str


def findings() -> Iterator[Finding]:
    for look in LOOKS_AT:
        yield from look()


def look_at_python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    known = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Finding(GOOD if known else BAD, "Python", version + ("" if known else ": 3.11 or 3.12 is needed"))


def look_at_packages() -> Iterator[Finding]:
    for name, least in LEAST_VERSIONS.items():
        wanted = ".".join(map(str, least))
        found = version_of(name)
        if found is None:
            yield Finding(BAD, name, f"is not installed; {wanted} or newer is needed")
        elif numbers_in(found) < least:
            yield Finding(BAD, name, f"{found}: {wanted} or newer is needed")
        else:
            yield Finding(GOOD, name, found)
    missing = [f"{name} (shoal[{extra}])" for name, extra in EXTRAS.items() if version_of(name) is None]
    if missing:
        yield Finding(GOOD, "extras", f"not installed: {', '.join(missing)}")


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers_in(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])))


def look_at_processors() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    few = cores < 2
    yield Finding(ODD if few else GOOD, "CPUs", f"{cores}" + (": workers and Ray share one" if few else ""))
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Finding(GOOD, "GPUs", "none: members train on CPUs")
        return
    asked = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS_FOR_GPUS)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(ODD, "GPUs", f"nvidia-smi does not answer: {error}")
        return
    said = "; ".join(done.stdout.strip().splitlines()) or done.stderr.strip()
    yield Finding(ODD if done.returncode else GOOD, "GPUs", said)


def look_at_memory() -> Iterator[Finding]:
    free = memory_left()
    if free is not None:
        yield sized("memory", free, "Ray, its workers and your model share it")
    if os.path.isdir("/dev/shm"):
        free = shutil.disk_usage("/dev/shm").free
        wanted = "weights and rows pass through it; in a container give it more with --shm-size=4g"
        yield sized("/dev/shm", free, wanted)


def memory_left(table: str = "/proc/meminfo", group: str = "/sys/fs/cgroup") -> int | None:
    """Return the bytes that are left to this process, by the machine and by its control group."""
    try:
        rows = dict(line.split(":") for line in Path(table).read_text().splitlines())
        left = int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None  # no Linux: nothing is known
    try:
        most = int(Path(group, "memory.max").read_text())
        return min(left, most - int(Path(group, "memory.current").read_text()))
    except (OSError, ValueError):  # no group, or no limit
        return left


def sized(about: str, free: int, why: str) -> Finding:
    said = f"{free / GIGABYTE:.1f} GB free"
    return Finding(GOOD, about, said) if free >= ROOM else Finding(ODD, about, f"{said}: {why}")


def look_at_open_files() -> Iterator[Finding]:
    import resource  # which Windows lacks

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES:
        yield Finding(GOOD, "open files", "without limit" if soft == resource.RLIM_INFINITY else str(soft))
        return
    raised = f"raise it with `ulimit -n {min(OPEN_FILES, hard) if hard > 0 else OPEN_FILES}`"
    yield Finding(ODD, "open files", f"{soft} at most: many workers need more; {raised}")


def look_at_places() -> Iterator[Finding]:
    for about, place in (("this folder", os.getcwd()), ("temporary files", tempfile.gettempdir())):
        if not os.access(place, os.W_OK | os.X_OK):
            yield Finding(BAD, about, f"{place} cannot be written")
        else:
            found = sized(about, shutil.disk_usage(place).free, "checkpoints and Ray's files need room")
            yield found._replace(said=f"{place}, {found.said}")


def look_at_network() -> Iterator[Finding]:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        yield from cluster_at(address)
        return
    try:
        with socket.socket() as tried:
            tried.bind(("127.0.0.1", 0))
    except OSError as error:
        yield Finding(BAD, "ports", f"none can be opened on 127.0.0.1: {error.strerror}")
    else:
        yield Finding(GOOD, "Ray", "a run starts its own, on this machine")


def cluster_at(address: str) -> Iterator[Finding]:
    from shoal.cluster.address import check_address  # which imports a part of Ray
    from shoal.cluster.errors import NoRay

    try:
        check_address(address)
    except NoRay as error:
        yield Finding(BAD, "Ray", str(error))
    else:
        yield Finding(GOOD, "Ray", f"the cluster at RAY_ADDRESS={address}")


def look_at_hidden() -> Iterator[Finding]:
    from shoal.search.members.own_class import refuse_hiding

    try:
        refuse_hiding()
    except InputError as error:
        yield Finding(BAD, "names", str(error))


LOOKS_AT: tuple[Callable[[], Iterator[Finding]], ...] = (
    look_at_python,
    look_at_packages,
    look_at_processors,
    look_at_memory,
    look_at_open_files,
    look_at_places,
    look_at_network,
    look_at_hidden,
)
