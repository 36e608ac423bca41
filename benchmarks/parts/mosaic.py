"""MosaicML Streaming's part of the stream benchmark, run by a Python of its own: it wants numpy below 2.2.

`python mosaic.py REGIME BATCH SECONDS ARRAY ...` prints rows a second, and a second of one core. Resident:
its shards lie where they are read. Streamed: they are fetched from a "remote" folder into an empty cache.
"""

import itertools
import os
import shutil
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
from torch.utils.data import DataLoader


def import_streaming():
    """Import it also where torchvision's wheel does not fit a CPU build of torch: only images need that."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if "torchvision" in name]:
            del sys.modules[name]
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            module = ModuleType(f"torchvision{name}")
            module.__spec__ = ModuleSpec(module.__name__, None)
            module.VisionDataset, module.to_tensor = object, None
            sys.modules[module.__name__] = module
    import streaming

    return streaming


sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.parts.family import core_seconds  # noqa: E402

streaming = import_streaming()


class Tokens(streaming.StreamingDataset):
    """Rows kept as bytes, which is quicker to decode than its own encoding of arrays."""

    def __getitem__(self, index):
        return np.frombuffer(super().__getitem__(index)["tokens"], np.uint16)


def write(array: str) -> str:
    """Write the rows as shards beside the array, once."""
    folder = array.removesuffix(".npy") + ".mds"
    if not os.path.exists(folder):
        rows = np.load(array, mmap_mode="r")
        with streaming.MDSWriter(out=folder, columns={"tokens": "bytes"}, size_limit=1 << 24) as writer:
            for row in rows:
                writer.write({"tokens": row.tobytes()})
    return folder


def batches(regime: str, batch: int, folders: list[str], workers: int):
    streams = []
    for folder in folders:
        cache = folder + ".cache"
        shutil.rmtree(cache, ignore_errors=True)
        place = {"local": folder} if regime == "resident" else {"remote": folder, "local": cache}
        streams.append(streaming.Stream(proportion=1 / len(folders), **place))
    data = Tokens(streams=streams, shuffle=True, batch_size=batch)
    loader = DataLoader(data, batch_size=batch, num_workers=workers)
    for _ in itertools.count():
        yield from loader


def main() -> None:
    regime, batch, arrays = sys.argv[1], int(sys.argv[2]), sys.argv[5:]
    seconds, settle = float(sys.argv[3]), float(sys.argv[4]) if sys.argv[1] == "streamed" else 0.0
    folders, best = [write(array) for array in arrays], (0.0, 0.0)
    for workers in (0, 2):
        found = batches(regime, batch, folders, workers)
        next(found)
        began = time.perf_counter()
        while time.perf_counter() - began < settle:
            next(found)
        rows, began, used = 0, time.perf_counter(), core_seconds()
        while time.perf_counter() - began < seconds / 2:
            rows += sum(len(each) for each in itertools.islice(found, 10))
        best = max(best, (rows / (time.perf_counter() - began), rows / (core_seconds() - used)))
        del found
    print(*best)


if __name__ == "__main__":
    main()
