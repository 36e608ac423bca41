"""Which Ray a driver works on, looked at before Ray is asked: it would wait for minutes, or end the process.

`RAY_ADDRESS` names a cluster by the HOST:PORT of its head; without it a driver starts a Ray of its own.
"""

import os
import re
import shlex
import sys

import grpc
from ray._common.utils import get_default_ray_temp_dir
from ray._private import services

from shoal.cluster.errors import NoRay

# Without an address Ray looks for a cluster that `ray start` left on this machine, also a dead one.
EMBEDDED = "local"
SECONDS_FOR_HEAD = 5.0
HEALTH = "/grpc.health.v1.Health/Check"
NO_HEAD_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
FORM = "must be HOST:PORT of a cluster's head, as `ray start` prints it, or auto"
HOW_TO_RUN_ALONE = "Unset RAY_ADDRESS to run on this machine alone."
# Ray adds this to its folder for its longest socket; the process number has seven digits
SOCKET = "/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107  # bytes in a socket's path


def wanted_address() -> str:
    """Return the address that this process was given, or EMBEDDED."""
    return os.environ.get("RAY_ADDRESS") or EMBEDDED


def check_address(address: str) -> None:
    """Raise NoRay unless the head of a Ray cluster answers at the address, or `auto` finds one."""
    if "://" in address:
        raise NoRay(f"RAY_ADDRESS: {FORM}, got {address}: {other_way(address)}")
    place = found_by_itself() if address == "auto" else address
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\s/]+):\d{1,5}", place):
        raise NoRay(f"RAY_ADDRESS: {FORM}, got {address}. {HOW_TO_RUN_ALONE}")
    if (reason := silence(place)) is not None:
        raise NoRay(f"RAY_ADDRESS: no Ray cluster answers at {place}: {reason}. {HOW_TO_RUN_ALONE}")


def other_way(address: str) -> str:
    """Return what to do with an address that is a URL."""
    if address.startswith("ray://"):
        return "Ray Client cannot carry a run. Run on the cluster, or send the run there with `shoal submit`."
    if address.startswith("http"):
        return f"that is a job server. Send the run there with `shoal submit --address {shlex.quote(address)}`."
    return HOW_TO_RUN_ALONE


def found_by_itself() -> str:
    try:
        return str(services.canonicalize_bootstrap_address("auto"))
    except ConnectionError as error:
        start = "Start one with `ray start --head`."
        raise NoRay(
            f"RAY_ADDRESS: auto finds no Ray cluster on this machine. {start} {HOW_TO_RUN_ALONE}"
        ) from error


def silence(place: str) -> str | None:
    """Return why no head answers at HOST:PORT, or None if one does."""
    with grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(HEALTH)(b"", timeout=SECONDS_FOR_HEAD, wait_for_ready=False)
        except grpc.RpcError as error:
            if error.code() in NO_HEAD_CODES:
                return (error.details() or str(error.code())).splitlines()[0].rstrip(".")
    return None


def folder() -> str | None:
    """Return where an embedded Ray may keep its files, None for where it would by itself.

    A socket's path must not be long, and the folder for what is temporary may have a long name, or be full of
    somebody else's; but where RAY_TMPDIR says which, that one it is. Raises NoRay.
    """
    first = get_default_ray_temp_dir()
    if (reason := unusable_folder(first)) is None:
        return None if os.path.isabs(first) else os.path.abspath(first)
    if "RAY_TMPDIR" in os.environ:
        raise NoRay(f"RAY_TMPDIR: Ray cannot keep its files in {first}: {reason}. Name another folder.")
    for other in ("/tmp/ray", f"/tmp/ray-{os.getuid()}"):
        if unusable_folder(other) is None:
            return other
    raise NoRay(f"Ray cannot keep its files in {first}: {reason}. Name another folder with RAY_TMPDIR.")


def unusable_folder(place: str) -> str | None:
    """Return why Ray could not work in a folder, or None if it can."""
    longest = LONGEST_SOCKET - len(SOCKET)
    if len(os.path.abspath(place).encode()) > longest:
        return f"its sockets there would have too long names, {longest} letters are the most"
    try:
        os.makedirs(place, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return None if os.access(place, os.W_OK | os.X_OK) else "it cannot be written"
