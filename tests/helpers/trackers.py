"""Trackers for tests: readers of what they hold, and a real MLflow server."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7  # bytes: W&B writes the blocks of a LevelDB log, and each piece has such a header


@contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Start MLflow's own server on a SQLite store; yield its address."""
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/store.db", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    place = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=place, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, folder / "server.log")
        yield address
    finally:
        end_group(server)


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it has started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def wait_for(address: str, log: Path, seconds: float = 360) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(log.read_text()[-2000:])


def wandb_records(file: Path) -> Iterator[Any]:
    """Yield the records of an offline run of W&B."""
    from wandb.proto import wandb_internal_pb2

    content, place, whole = file.read_bytes(), HEADER, b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:  # no header fits into the rest of the block
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + HEADER])
        whole += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""
