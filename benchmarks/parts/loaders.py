"""Other people's loaders for the stream benchmark: each yields batches of three groups in fixed proportions."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from shoal.cluster.reading import open_dataset
from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store

SETTLE = 2.0  # seconds before a streaming loader's clock: its processes start, and begin to read ahead


def save_arrays(store: Store, files: dict[str, list[str]]) -> list[str]:
    """Write each group's rows as one `.npy` file, for those that map memory, and return where they are."""
    paths = []
    for group, names in files.items():
        paths.append(f"{store.root}/{group}.npy")
        if not os.path.exists(paths[-1]):
            np.save(paths[-1], np.concatenate([as_rows(store.read_table(name)) for name in names]))
    return paths


class Mapped(Dataset):
    """Memory-mapped rows of all groups, one after another."""

    def __init__(self, paths: list[str]):
        self.arrays = [np.load(path, mmap_mode="r") for path in paths]
        self.starts = np.cumsum([0, *map(len, self.arrays)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> NDArray[np.uint16]:
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        return np.array(self.arrays[group][index - self.starts[group]])  # torch wants one it may write to


class MappedAtOnce(Mapped):
    """The same, which fetches a whole batch by one call, as `DataLoader` offers to those who write it."""

    def __getitems__(self, indices: list[int]) -> Any:
        chosen = np.asarray(indices)
        groups = np.searchsorted(self.starts, chosen, side="right") - 1
        places = chosen - self.starts[groups]
        return np.concatenate([array[places[groups == group]] for group, array in enumerate(self.arrays)])


def torch_rows(paths: list[str], batch: int, at_once: bool, workers: int = 0) -> Iterator[Any]:
    """Yield batches of torch's `DataLoader` over mapped memory, drawn by weight."""
    rows = MappedAtOnce(paths) if at_once else Mapped(paths)
    weights = np.concatenate([np.full(len(array), 1 / len(array)) for array in rows.arrays])
    sampler = WeightedRandomSampler(torch.from_numpy(weights), len(rows))
    collate = torch.from_numpy if at_once else None
    loader = DataLoader(rows, batch_size=batch, sampler=sampler, num_workers=workers, collate_fn=collate)
    for _ in itertools.count():
        yield from loader


def mix(store: Store, files: dict[str, list[str]], batch: int, materialised: bool) -> Iterator[Any]:
    """Yield batches of `Dataset.mix`, materialised or while files are read.

    The files are read by our own tasks: `ray.data.read_parquet` (2.60) starts an actor for many a file, which
    were hundreds of processes here, until the memory of the machine was used up.
    """
    groups = [open_dataset(store, names) for names in files.values()]
    first, *others = [group.materialize() for group in groups] if materialised else groups
    mixed = first.mix(*others, weights=[1 / len(groups)] * len(groups))
    for _ in itertools.count():
        for rows in mixed.iter_batches(batch_size=batch, batch_format="pyarrow"):
            yield as_rows(rows)


def mosaic(python: str, paths: list[str], batch: int, seconds: float, regime: str) -> tuple[float, float]:
    """Return rows a second, and a second of one core, of MosaicML Streaming.

    It is run by a Python that has it, since it wants an older numpy.
    """
    program = Path(__file__).with_name("mosaic.py")
    done = subprocess.run(
        [python, str(program), regime, str(batch), str(seconds), str(SETTLE), *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks/parts/mosaic.py failed:\n{done.stderr[-2000:]}")
    by_second, by_core_second = done.stdout.splitlines()[-1].split()
    return float(by_second), float(by_core_second)
