"""A Ray cluster of separate processes on this machine, with ports and a folder of its own."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.helpers.listening import descendants

ROOT = Path(__file__).parents[2]
SECONDS_TO_START, TRIES = 480, 3


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, outside those that `ray start` reserves for workers."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Nodes:
    """A head and workers; each is one `ray start --block`, ended by its own process group."""

    def __init__(self, **variables: str):
        # Ray's sockets do not fit into pytest's long folder names
        self.folder = Path(tempfile.mkdtemp(prefix="sh-"))
        self.gcs, self.dashboard, client, self.metrics = free_ports(4)
        self.address = f"http://127.0.0.1:{self.dashboard}"
        paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": paths, "RAY_JOB_STOP_WAIT_TIME_S": "60", **variables}
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.numbers: dict[int, int] = {}  # of all nodes that ever were, by process
        self.client = client

    def head(self, cpus: float) -> subprocess.Popen[bytes]:
        return self.start(
            "--head",
            f"--port={self.gcs}",
            f"--dashboard-port={self.dashboard}",
            "--dashboard-host=127.0.0.1",
            f"--ray-client-server-port={self.client}",
            f"--metrics-export-port={self.metrics}",
            f"--num-cpus={cpus:g}",
            '--resources={"driver": 1}',
        )

    def worker(self, cpus: float) -> subprocess.Popen[bytes]:
        return self.start(f"--address=127.0.0.1:{self.gcs}", f"--num-cpus={cpus:g}")

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a node and wait until it has joined; on a busy machine Ray may give one up after 30 s."""
        for _ in range(TRIES):
            node = self.begin(*options)
            if self.joins(node):
                return node
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)  # what is left of it, also where it has ended
            self.kill(node)
        raise AssertionError(self.said())

    def begin(self, *options: str) -> subprocess.Popen[bytes]:
        number = len(self.numbers)
        log = (self.folder / f"node-{number}.log").open("wb")
        # in one folder a node would unpack a job's working directory over another's
        place = f"--temp-dir={self.folder}/{number}"
        # the agent's usual port may be another Ray's on this machine, and without it no job is taken
        listen, talk = free_ports(2)
        agent = (f"--dashboard-agent-listen-port={listen}", f"--dashboard-agent-grpc-port={talk}")
        common = ("--node-ip-address=127.0.0.1", "--block", "--disable-usage-stats", place, *agent)
        size = "--object-store-memory=100000000"
        program = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *common, size]
        node = subprocess.Popen(
            program, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
        )
        self.nodes.append(node)
        self.numbers[node.pid] = number
        return node

    def joins(self, node: subprocess.Popen[bytes]) -> bool:
        """Wait until a node has joined; say whether it has."""
        deadline = time.monotonic() + SECONDS_TO_START
        while self.known_as(node) is None:
            if node.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        return True

    def known_as(self, node: subprocess.Popen[bytes]) -> str | None:
        """Return the name under which the head knows a node that is alive, or None."""
        token = self.environment.get("RAY_AUTH_TOKEN", "")
        asked = urllib.request.Request(
            f"{self.address}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"} if token else {}
        )
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                found = json.loads(answer.read())["data"]["summary"]
        except (OSError, KeyError):
            return None  # the head has just begun
        folder = f"{self.folder}/{self.numbers[node.pid]}/"
        for raylet in (each["raylet"] for each in found):
            if raylet["state"] == "ALIVE" and raylet["rayletSocketName"].startswith(folder):
                return str(raylet["nodeId"])
        return None

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """End a node and all that it started, as a machine that is lost."""
        self.nodes.remove(node)
        for process in self.of(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        node.wait(timeout=480)

    def drain(self, node: subprocess.Popen[bytes], seconds: int) -> None:
        """Tell Ray that a node will be gone in so many seconds, as a cloud that takes it back does."""
        name = self.known_as(node)
        assert name is not None
        told = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test")
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--node-id", name, *told]
        place = ("--address", f"127.0.0.1:{self.gcs}", "--deadline-remaining-seconds", str(seconds))
        subprocess.run([*command, *place], env=self.environment, capture_output=True, check=True, timeout=480)

    def of(self, node: subprocess.Popen[bytes]) -> list[int]:
        """Return a node's processes, its children's children first."""
        return descendants(node.pid)[::-1] if node.poll() is None else []

    def said(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("node-*.log")))

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes[::-1]:
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)
