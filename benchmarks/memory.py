"""What a corpus 20 times the object store takes in memory while it streams to its end.

Ray's object store gets the budget, the windows of the three groups are cut to fit into it, and one member
reads every row once. Memory is what the operating system says: the proportional set sizes of this process
and all of Ray's (so a page that several map counts once) without pages of files, sampled while the rows
stream, less the same sum when Ray, Ray Data's own actors and the reading processes had started and read one
file each: what these take, about 1.5 GiB, does not grow with a corpus. With `--selection` DSIR chooses a
hundredth of a pool of that size on the cluster, in rows of 1,024 tokens. The last line is one JSON object.
"""

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from benchmarks.parts import pool
from benchmarks.parts.family import memory
from benchmarks.stream import BATCH, FILE_ROWS, GROUPS, ROW_TYPE, streamed, write_groups
from shoal.cluster.reading import blocks_of, open_dataset, read_files
from shoal.cluster.session import session
from shoal.cluster.storage import Store
from shoal.search.corpus.batches import MixedBatches
from shoal.search.errors import Exhausted

WINDOWS = 0.65  # of the budget


class Watch(threading.Thread):
    """Samples the family's memory until told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak: Counter[str] = Counter()  # when all together held most
        self.most: Counter[str] = Counter()  # when each kind of process held most
        self.samples, self.over = 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.2):
            found = memory()
            self.peak, self.samples = max(self.peak, found, key=Counter.total), self.samples + 1
            self.most |= found


@ray.remote(num_cpus=0.25)
def start_up(uri: str, file: str) -> pa.Table:
    """Read one file, and stay long enough for Ray to need another process beside this one."""
    found = read_files(pa.table({"file": [file]}), uri)
    time.sleep(3)
    return found


def measure(budget: int, times: int) -> dict[str, Any]:
    files = times * budget // (len(GROUPS) * FILE_ROWS * ROW_TYPE.itemsize)
    with tempfile.TemporaryDirectory() as folder, session(object_store_bytes=budget):
        store = Store(folder)
        names = write_groups(store, files)
        for _ in blocks_of(open_dataset(store, names["code"][:1]).iterator()):
            pass
        ray.get([start_up.remote(store.uri, names["code"][0]) for _ in range(2 * len(GROUPS))])
        rest, watch, began = memory(), Watch(), time.perf_counter()
        # a group's window holds 3/4 of its room, and up to 1/4 is on its way; twice that where datasets
        # overlap, and each reading process keeps an eighth to shuffle in
        streams = streamed(store, names, int(WINDOWS * budget) // len(GROUPS))
        limits = [files * FILE_ROWS] * len(GROUPS)
        member = MixedBatches(streams, np.full(len(GROUPS), 1 / len(GROUPS)), BATCH, limits)
        rows = 0
        try:
            while True:
                rows += len(member.next())
        except Exhausted:
            seconds = time.perf_counter() - began
        watch.over.set()
        watch.join()
        for stream in streams.values():
            stream.close()
    corpus = len(GROUPS) * files * FILE_ROWS * ROW_TYPE.itemsize
    return {
        "budget_mib": budget / 2**20,
        "corpus_over_budget": round(corpus / budget, 2),
        "rows": rows,
        "rows_left": sum(limits) - rows,
        "rows_skipped": sum(member.skipped),
        "rest_mib": round(rest.total() / 2**20, 1),
        "peak_mib": round(watch.peak.total() / 2**20, 1),
        "peak_over_rest_mib": round((watch.peak.total() - rest.total()) / 2**20, 1),
        "peak_over_rest_mib_by_process": {
            name: round((watch.peak[name] - rest[name]) / 2**20, 1) for name in sorted(watch.peak | rest)
        },
        "peak_over_budget": round((watch.peak.total() - rest.total()) / budget, 3),
        "samples": watch.samples,
        "rows_per_second": round(rows / seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512, help="the object store's size, the budget")
    parser.add_argument("--selection", action="store_true", help="choose rows out of such a pool instead")
    parser.add_argument("--full", action="store_true", help="a budget of 1 GiB")
    arguments = parser.parse_args()
    budget = (1024 if arguments.full else arguments.megabytes) << 20
    if not arguments.selection:
        print(json.dumps(measure(budget, times=20)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(pool.measure(folder, budget, 20, Watch)))


if __name__ == "__main__":
    main()
