"""A function on each file of a corpus: here, or by actors of a stage of Ray Data."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray

from shoal.cluster.session import capacity
from shoal.search.config.run import Run
from shoal.search.corpus.scores import CPUS
from shoal.search.corpus.stages import TaskRefusal, accepted, connected
from shoal.search.errors import InputError
from shoal.trainables.heap import malloc_trim

Found = TypeVar("Found")


class StageWorker:
    """What a stage's actor does: it makes the function once, and applies it to each file.

    Ray gives it one thread, so nothing says so here: torch takes 200 MiB, and n-grams need none of it.
    """

    def __init__(self, make: Callable[[], Callable[[str], Any]]):
        self.function = make()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = []
        for file in batch["file"].tolist():
            try:
                found.append(pickle.dumps(self.function(file)))
            except (InputError, OSError) as error:  # raised here, they would arrive inside Ray's trace
                found.append(pickle.dumps(TaskRefusal(error)))
            give_memory_back()
        return {"file": batch["file"], "found": np.array(found, object)}


def give_memory_back() -> None:
    """Give the system what was freed here, and what Arrow and the C library would keep for later."""
    pa.default_memory_pool().release_unused()
    if (trim := malloc_trim()) is not None:
        trim(0)


def on_files(run: Run, make: Callable[[], Callable[[str], Found]], files: list[str]) -> list[Found]:
    """Apply a function to each file, in order: on the cluster, or here with `data.builder: local`."""
    if is_local(run):
        return list(each_of_files(run, make, files))
    with connected():
        return on_stage(make, files, run.cluster.gpus_per_worker)


def each_of_files(run: Run, make: Callable[[], Callable[[str], Found]], files: list[str]) -> Iterator[Found]:
    """Yield what a function finds of each file, in any order, so that not all need be in memory."""
    if is_local(run):
        yield from map(make(), files)
        return
    with connected():
        for _, found in each_of_stage(make, files, run.cluster.gpus_per_worker):
            yield found


def is_local(run: Run) -> bool:
    return run.data.builder == "local" and not run.cluster.gpus_per_worker


def on_stage(make: Callable[[], Callable[[str], Found]], files: list[str], gpus: float) -> list[Found]:
    """Apply a function to each file, in order, in a stage of Ray Data."""
    # Ray Data keeps no order of its own
    found = dict(each_of_stage(make, files, gpus))
    return [found[file] for file in files]


def each_of_stage(
    make: Callable[[], Callable[[str], Found]], files: list[str], gpus: float
) -> Iterator[tuple[str, Found]]:
    """Yield files and what is found of each, as they are done, by as many actors as there is room for."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    had = capacity()
    actors = int(had.get("GPU", 0.0) / gpus) if gpus else int(had["CPU"])
    names = ray.data.from_items([{"file": file} for file in files], override_num_blocks=len(files))
    stage = names.map_batches(
        StageWorker,
        fn_constructor_args=(make,),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=max(1, min(actors, len(files)))),
        num_gpus=gpus or None,
        num_cpus=None if gpus else CPUS,
    )
    for row in stage.iter_rows():
        yield row["file"], accepted(pickle.loads(row["found"]))
