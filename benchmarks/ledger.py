"""What the ledger takes: updates a second, memory, snapshots, and coming back after a death.

A pool of 10 million rows; one sender feeds as many random records in calls of 10,000. Beside the ledger's
actors stands their book alone, in this process and without Ray. The last line is one JSON object.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray

from shoal.cluster.ledger import ROWS_A_CALL, Sender, start_ledger
from shoal.cluster.session import session
from shoal.policies.sampling.losses import BYTES_A_ROW, LastLosses

Records = list[tuple[np.ndarray, ...]]


def records(rows: int, updates: int) -> Records:
    """Return calls of random rows, as training sends them: steps rise, now and then one comes late."""
    rng = np.random.default_rng(0)
    found = []
    for call in range(updates // ROWS_A_CALL):
        steps = np.full(ROWS_A_CALL, call) - rng.integers(0, 3, ROWS_A_CALL)
        losses = rng.exponential(1.0, ROWS_A_CALL).astype(np.float32)
        found.append((rng.integers(0, rows, ROWS_A_CALL), losses, steps, np.zeros_like(steps)))
    return found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def alone(rows: int, calls: Records) -> float:
    """Return the updates a second of one book in this process."""
    book = LastLosses(rows)
    seconds, _ = timed(lambda: [book.observe(*call) for call in calls])
    return sum(len(call[0]) for call in calls) / seconds


def memory(_: Any) -> int:
    """Return the most bytes that a shard's process has had; runs there."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(rows: int, calls: Records, shards: int) -> dict[str, Any]:
    folder = tempfile.mkdtemp(prefix="ledger-")
    try:
        found = start_ledger(LastLosses, rows, folder, shards)
        empty = start_ledger(LastLosses, shards, tempfile.mkdtemp(dir=folder), shards)
        sender = Sender(found)
        sender.flush()
        Sender(empty).flush()
        base = sum(ray.get([shard.__ray_call__.remote(memory) for shard in empty.shards]))

        def feed() -> None:
            for call in calls:
                sender.send(*call)
            sender.flush()

        seconds, _ = timed(feed)
        peak = sum(ray.get([shard.__ray_call__.remote(memory) for shard in found.shards])) - base
        mark, _ = timed(lambda: found.mark(1, save=False))
        read, losses = timed(lambda: found.read("loss", 1))
        save, _ = timed(lambda: found.mark(2))
        sender.saved(2)
        ray.kill(found.shards[0], no_restart=False)
        back, _ = timed(sender.flush)
        assert np.array_equal(found.read("loss"), losses, equal_nan=True)
        size = sum(os.path.getsize(f"{folder}/ledger/{name}") for name in os.listdir(f"{folder}/ledger"))
    finally:
        shutil.rmtree(folder)
    return {
        "shards": shards,
        "updates_per_second": round(sum(len(call[0]) for call in calls) / seconds),
        "memory_bytes_per_row": round(peak / rows, 1),
        "mark_s": round(mark, 3),
        "snapshot_s": round(read, 3),
        "save_s": round(save, 3),
        "file_bytes_per_row": round(size / rows, 1),
        "back_after_death_s": round(back, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--updates", type=int, default=10_000_000)
    parser.add_argument("--full", action="store_true", help="100 million rows, 10 shards")
    arguments = parser.parse_args()
    rows = 100_000_000 if arguments.full else arguments.rows
    calls = records(rows, arguments.updates)
    results: dict[str, Any] = {"rows": rows, "book_bytes_per_row": BYTES_A_ROW}
    results["book_updates_per_second"] = round(alone(rows, calls))
    print(f"the book alone: {results['book_updates_per_second']} updates a second", flush=True)
    with session():
        results["ledger"] = []
        for shards in (10,) if arguments.full else (1, 2):
            results["ledger"].append(measure(rows, calls, shards))
            print(results["ledger"][-1], flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
