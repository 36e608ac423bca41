"""Where processes of this machine listen, as Linux knows it."""

import contextlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path

LISTENING = "0A"  # a TCP socket's state


def descendants(process: int) -> list[int]:
    """Return a process and all that came of it, parents first."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(pid): int(parent) for pid, parent in map(str.split, listed.stdout.splitlines())}
    found = [process]
    for each in found:
        found += [pid for pid, parent in parents.items() if parent == each]
    return found


def addresses(processes: Iterable[int]) -> dict[str, str]:
    """Return the TCP addresses (HOST:PORT) on which processes wait for connections, and whose each is."""
    owners = {inode: process for process in processes for inode in _sockets(process)}
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in owners:
                host, port = fields[1].split(":")
                owner = Path(f"/proc/{owners[fields[9]]}/cmdline").read_text().replace("\0", " ")
                found[f"{_host(host)}:{int(port, 16)}"] = owner[:120]
    return found


def _sockets(process: int) -> Iterator[str]:
    """Yield the inodes of a process's sockets; files that are closed meanwhile are passed over."""
    with contextlib.suppress(OSError):
        for file in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{process}/fd/{file}")
                if target.startswith("socket:["):
                    yield target.removeprefix("socket:[")[:-1]


def _host(text: str) -> str:
    """Read an address as /proc writes it: words of four bytes, each the wrong way round."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    found = ip_address(b"".join(words))
    return str(getattr(found, "ipv4_mapped", None) or found)
