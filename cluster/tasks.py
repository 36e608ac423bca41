"""One function over many inputs, as tasks on whatever CPUs or GPUs the cluster has."""

from collections.abc import Callable, Sequence
from typing import Any

import ray


def map_tasks(
    function: Callable[[Any, Any], Any], shared: Any, inputs: Sequence[Any], gpus: float = 0.0
) -> list[Any]:
    """Return `function(shared, input)` of every input, in their order; `shared` is put into the store once.

    Each takes a CPU, and so many GPUs. Raises what a task raised.
    """
    reference = ray.put(shared)
    task = ray.remote(function).options(num_cpus=1, num_gpus=gpus)
    return ray.get([task.remote(reference, each) for each in inputs])
