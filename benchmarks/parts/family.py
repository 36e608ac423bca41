"""What this process and all that came from it take of the machine: memory, and time on its cores."""

import os
from collections import Counter
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # a second
OWN = ("Pss_Anon:", "Pss_Shmem:")  # proportional set sizes: of memory, and of Ray's object store


def family() -> list[int]:
    """Return this process and all that came from it."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat(int(entry))):
            parents[int(entry)] = int(fields[1])
    found = [os.getpid()]
    for each in found:  # grows while it is gone through
        found += [child for child, parent in parents.items() if parent == each]
    return found


def stat(process: int) -> list[str]:
    """Return a process's state, parent and further fields of `/proc/PID/stat`; none if it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def memory() -> Counter[str]:
    """Return the bytes that the family holds, by kind of process; a page that several share counts once.

    Pages of files are left out: they are the code of libraries above all, and a process's share of them grows
    when others of this machine that map them end.
    """
    total: Counter[str] = Counter()
    for process in family():
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            title = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:  # it has ended meanwhile
            continue
        held = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(OWN))
        total[kind(process, title)] += held
    return total


def kind(process: int, title: str) -> str:
    """Return what a process is: this one, Ray's server on this node, one that reads or scores, or Ray's own."""
    if process == os.getpid():
        return "driver"
    if title.endswith("raylet"):
        return "raylet"
    if title.startswith("ray::MapWorker"):
        return "scorers"
    return "readers" if title.startswith(("ray::IDLE", "ray::MapBatches", "ray::start_up")) else "other"


def core_seconds() -> float:
    """Return the seconds of one core that the family has used, those of members that have ended left out."""
    found = [stat(process) for process in family()]
    return sum(int(fields[11]) + int(fields[12]) for fields in found if fields) / TICKS
