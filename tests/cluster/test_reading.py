"""A window fed by Ray Data: the order holds over datasets, epochs, and a reading process that is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray

from shoal.cluster import reading
from shoal.cluster.row_order import RowOrder
from shoal.cluster.rows import as_column, token_rows
from shoal.cluster.session import session
from shoal.cluster.storage import Store
from shoal.cluster.streams import WindowStream
from shoal.policies.mixing import normalise
from shoal.search.corpus.batches import MixedBatches

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
LENGTH, SIZES = 64, [60_000, 60_000, 20_000, 60_000, 60_000]
ROWS = sum(SIZES)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    store, start = Store(str(tmp_path_factory.mktemp("rows"))), 0
    for file, size in enumerate(SIZES):
        numbers = np.arange(start, start + size)
        tokens = np.zeros((size, LENGTH), np.uint16)
        tokens[:, 0], tokens[:, 1] = numbers % 2**16, numbers // 2**16
        store.write_table(f"{file}.parquet", pa.table({"tokens": as_column(tokens)}), use_dictionary=False)
        start += size
    return store


def window(store: Store, group: str, room: int, at_once: int) -> WindowStream:
    order, each = RowOrder(group, SIZES, 0), token_rows(LENGTH)
    files = [f"{file}.parquet" for file in range(len(SIZES))]
    return WindowStream(
        partial(reading.read_on, store, files, order, each, room // 4, at_once),
        order,
        each,
        room // each.itemsize,
    )


def numbers(batch: np.ndarray) -> list[int]:
    return (batch[:, 0] + batch[:, 1].astype(np.int64) * 2**16).tolist()


def kill_a_reader(ended: threading.Event, killed: list[str]) -> None:
    """Kill the first of this test's Ray processes that is seen at reading."""
    while not ended.wait(0.01):
        found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        lines = [line.split(None, 2) for line in found.stdout.splitlines()]
        parents = {int(line[0]): int(line[1]) for line in lines}
        for process, _, title in lines:
            grandparent = parents.get(parents[int(process)])
            if "MapBatches(read_turns)" in title and grandparent == os.getpid():
                os.kill(int(process), signal.SIGKILL)
                killed.append(title)
                return


def read_on_ray(uri: str) -> None:
    """Read windows on an embedded Ray, and leave them open at its end."""
    reading.SEGMENT, reading.EARLY = 4, 2
    with session():
        read(Store(uri))
        # longer than Ray Data waits for its threads, which would then ask a Ray that is gone
        reading.Unhurried.on_execution_step = lambda self, executor: time.sleep(3)
    time.sleep(4)
    assert not ray.is_initialized()  # what still reads starts Ray anew
    print("read", flush=True)


def read(store: Store) -> None:
    orders = {group: RowOrder(group, SIZES, 0) for group in ("code", "law")}
    killed: list[str] = []
    # rooms of one and of three files: a task reads one file at a time, or several
    for room, at_once in ((40 << 20, 1), (160 << 20, 2)):
        streams = {group: window(store, group, room, at_once) for group in orders}
        member = MixedBatches(streams, normalise([2, 1]), 3000)
        ended = threading.Event()
        thread = threading.Thread(target=kill_a_reader, args=(ended, killed))
        thread.start()
        cursors = [0, 0]
        for _ in range(int(1.5 * 1.5 * ROWS / 3000)):
            batch = numbers(member.next())
            places = [
                order.places(cursor, count - cursor)
                for order, cursor, count in zip(orders.values(), cursors, member.cursors, strict=True)
            ]
            assert batch == np.concatenate(places).tolist()
            cursors = list(member.cursors)
        assert cursors[0] > 1.4 * ROWS and member.skipped == [0, 0]
        # a member that starts where this one is goes on alike, from a stream of its own
        clone = MixedBatches(
            {group: window(store, group, room, at_once) for group in orders}, normalise([1, 1]), 3000
        )
        clone.load(member.state())
        assert numbers(clone.next()) == numbers(member.next())
        ended.set()
        thread.join()
    assert killed


def test_batches_are_the_same_over_datasets_and_epochs_and_when_a_reader_is_killed(store) -> None:
    program = f"from tests.cluster.test_reading import read_on_ray; read_on_ray({store.uri!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1120,
        # as the shell leaves it to what runs in the background; Ray's workers must not inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    # Ray tells on both of the reader that was killed
    assert done.returncode == 0 and done.stdout.endswith("read\n"), done.stdout + done.stderr
    for said in ("not callable", "SIGTERM handler is not set"):  # the second: Ray was started anew by a thread
        assert said not in done.stdout + done.stderr


RUN = """
name: windows
seed: 5
data:
  corpus: {corpus}
  groups: {{code: installed, docs: installed}}
  sequence_length: 8
  megabytes: 0.8
  memory_megabytes: {room}
model: {{layers: 1, heads: 1, width: 16}}
training: {{steps: 40, batch: 256, evaluation_rows: 8}}
hyperparameters: {{learning_rate: {{kind: float, low: 0.0003, high: 0.03, log: true}}}}
population: {{members: 4, interval: 10}}
cluster: {{broods: 1, workers_per_brood: {workers}, stack: false}}
"""


@pytest.mark.slow
def test_members_of_a_run_get_the_same_rows_through_windows_and_on_other_workers(tmp_path) -> None:
    found = []
    for name, room, workers in (("whole", 1024, 1), ("windows", 1.2, 1), ("two", 1.2, 2)):
        file = tmp_path / f"{name}.yaml"
        file.write_text(RUN.format(corpus=tmp_path / "corpus", room=room, workers=workers))
        command = ["shoal", "run", str(file), f"directory={tmp_path / name}"]
        done = subprocess.run(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr + done.stdout
        rows = Store(str(tmp_path / name)).read_table("metrics.parquet").to_pylist()
        # losses of training are those of the very rows that a member was given
        told = ("round", "member", "train_loss", "score")
        found.append(sorted(tuple(row[name] for name in told) for row in rows))
    assert found[0] == found[1] == found[2]
