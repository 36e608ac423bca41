"""Between torch's values and plain numpy ones, which any process can read without torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def to_arrays(tree: Any) -> Any:
    """Return a copy of a nest of dicts and lists with every tensor as a numpy array."""
    if isinstance(tree, torch.Tensor):
        still = tree.detach().cpu()
        # numpy has no bfloat16: its bits travel as uint16
        still = still.view(torch.uint16) if still.dtype == torch.bfloat16 else still
        return still.numpy().copy()
    if isinstance(tree, Mapping):
        return {str(key): to_arrays(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [to_arrays(value) for value in tree]
    return tree


def copy_into(target: torch.Tensor, array: np.ndarray, name: str) -> None:
    """Copy an array into a tensor of the same shape and size of number."""
    if tuple(target.shape) != array.shape or target.element_size() != array.dtype.itemsize:
        raise ValueError(
            f"{name}: the copied array must be {tuple(target.shape)} of {target.dtype}, "
            f"but is {array.shape} of {array.dtype}."
        )
    # np.array: what Ray hands over is read-only, and torch warns of that
    source = torch.from_numpy(np.array(array))
    with torch.no_grad():
        target.copy_(source.view(target.dtype) if source.dtype != target.dtype else source)
