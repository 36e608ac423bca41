"""A Ray cluster of separate processes on this machine, with ports and a folder of its own."""

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

ROOT = Path(__file__).parent.parent
SECONDS_TO_START = 90


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

    def head(self, cpus: float) -> None:
        self.start(
            "--head",
            f"--port={self.gcs}",
            f"--dashboard-port={self.dashboard}",
            "--dashboard-host=127.0.0.1",
            f"--ray-client-server-port={self.client}",
            f"--metrics-export-port={self.metrics}",
            f"--num-cpus={cpus:g}",
        )
        self.wait_for(1)

    def worker(self, cpus: float) -> subprocess.Popen[bytes]:
        node = self.start(f"--address=127.0.0.1:{self.gcs}", f"--num-cpus={cpus:g}")
        self.wait_for(len(self.nodes))
        return node

    def start(self, *options: str) -> subprocess.Popen[bytes]:
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

    def wait_for(self, count: int) -> None:
        """Wait until as many nodes are alive."""
        deadline = time.monotonic() + SECONDS_TO_START
        while self.alive() < count:
            assert time.monotonic() < deadline, self.said()
            assert all(node.poll() is None for node in self.nodes), self.said()
            time.sleep(0.3)

    def alive(self) -> int:
        program = (
            "import ray; from ray._raylet import GcsClient;"
            f"print(sum(n.state == 0 for n in GcsClient('127.0.0.1:{self.gcs}').get_all_node_info().values()))"
        )
        try:
            urllib.request.urlopen(f"{self.address}/api/version", timeout=2).close()
        except OSError as error:
            if getattr(error, "code", None) not in (401, 403):
                return 0
        done = subprocess.run(
            [sys.executable, "-c", program], env=self.environment, capture_output=True, text=True, timeout=60
        )
        return int(done.stdout or 0)

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """End a node and all that it started, as a machine that is lost."""
        for process in self.of(node):
            os.kill(process, signal.SIGKILL)
        node.wait(timeout=20)

    def drain(self, node: subprocess.Popen[bytes], seconds: int) -> None:
        """Tell Ray that a node will be gone in so many seconds, as a cloud that takes it back does."""
        folder = f"{self.folder}/{self.numbers[node.pid]}/"
        program = (
            "from ray._raylet import GcsClient;"
            f"nodes = GcsClient('127.0.0.1:{self.gcs}').get_all_node_info();"
            f"print([i.hex() for i, n in nodes.items() if n.raylet_socket_name.startswith('{folder}')][0])"
        )
        run = {"env": self.environment, "capture_output": True, "text": True, "check": True, "timeout": 60}
        number = subprocess.run([sys.executable, "-c", program], **run).stdout.strip()
        told = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test")
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--node-id", number, *told]
        place = ("--address", f"127.0.0.1:{self.gcs}", "--deadline-remaining-seconds", str(seconds))
        subprocess.run([*command, *place], **run)

    def of(self, node: subprocess.Popen[bytes]) -> list[int]:
        """Return a node's processes, its children's children first."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
        parents = {int(pid): int(parent) for pid, parent in map(str.split, listed.stdout.splitlines())}
        found = [node.pid]
        for process in found:
            found += [pid for pid, parent in parents.items() if parent == process]
        return found[::-1] if node.poll() is None else []

    def said(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("node-*.log")))

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            for process in self.of(node):
                os.kill(process, signal.SIGKILL)
            node.wait(timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)
