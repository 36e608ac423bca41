"""Conversion between torch tensors and numpy arrays, which a process without torch can read too."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor


def to_arrays(tree: Any) -> Any:
    """Return a copy of a nest of dicts and lists with every tensor as a numpy array."""
    if isinstance(tree, torch.Tensor):
        # a sharded weight is reduced to this process's share
        own = (tree.to_local() if isinstance(tree, DTensor) else tree).detach()
        still = own.cpu()
        # numpy has no bfloat16: its bits travel as uint16
        array = (still.view(torch.uint16) if still.dtype == torch.bfloat16 else still).numpy()
        # a tensor from a device was already copied by .cpu()
        return array.copy() if own.device.type == "cpu" else array
    if isinstance(tree, Mapping):
        return {str(key): to_arrays(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [to_arrays(value) for value in tree]
    return tree


def to_views(tree: Any) -> Any:
    """Return a nest of dicts and lists with every tensor as an array, on a CPU in the tensor's own memory."""
    if isinstance(tree, torch.Tensor):
        still = (tree.to_local() if isinstance(tree, DTensor) else tree).detach().cpu()
        return (still.view(torch.uint16) if still.dtype == torch.bfloat16 else still).numpy()
    if isinstance(tree, Mapping):
        return {str(key): to_views(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [to_views(value) for value in tree]
    return tree


def to_clones(tree: Any, device: torch.device) -> Any:
    """Return a copy of a nest: tensors on `device` stay tensors there, all others become numpy arrays."""
    if isinstance(tree, torch.Tensor) and tree.device.type == device.type:
        return (tree.to_local() if isinstance(tree, DTensor) else tree).detach().clone()
    if isinstance(tree, Mapping):
        return {str(key): to_clones(value, device) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [to_clones(value, device) for value in tree]
    return to_arrays(tree)


def map_nest(function: Callable[..., Any], *nests: Any) -> Any:
    """Return a nest like the first, of the function's results on the leaves at the same places of all nests."""
    first = nests[0]
    if isinstance(first, Mapping):
        return {key: map_nest(function, *(nest[key] for nest in nests)) for key in first}
    if isinstance(first, list | tuple):
        return [map_nest(function, *parts) for parts in zip(*nests, strict=True)]
    return function(*nests)


def is_words(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "US"


def to_tensors(nest: Any, device: torch.device) -> Any:
    """Return a nest of arrays or tensors as tensors on a device; these may share the arrays' memory.

    Arrays of words stay as they are: torch has none.
    """

    def move(leaf: Any) -> Any:
        if is_words(leaf):
            return leaf
        if isinstance(leaf, torch.Tensor):
            return leaf.to(device)
        # arrays from Ray are read-only, and torch.from_numpy warns about that
        return torch.from_numpy(leaf if leaf.flags.writeable else leaf.copy()).to(device)

    return map_nest(move, nest)


def leaves_of(nest: Any) -> list[Any]:
    """Return the arrays or tensors of a nest, in its order."""
    found: list[Any] = []
    map_nest(found.append, nest)
    return found


def rows_in(batch: Any) -> int:
    """Return the number of rows of a batch: an array, or a nest of equally long arrays."""
    return len(leaves_of(batch)[0])


def pieces(batch: Any, rows: int) -> list[Any]:
    """Return a batch in pieces of at most so many rows."""
    return [
        map_nest(lambda leaf, start=start: leaf[start : start + rows], batch)
        for start in range(0, rows_in(batch), rows)
    ]


def stack(*leaves: Any) -> Any:
    """Return tensors or arrays of one shape, stacked along a new first axis."""
    return torch.stack(leaves) if isinstance(leaves[0], torch.Tensor) else np.stack(leaves)


def same_memory(first: Any, second: Any) -> bool:
    """Say whether the leaves of two nests lie in the same memory; their values are not compared."""

    def where(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.device, leaf.data_ptr(), leaf.shape, leaf.stride(), leaf.dtype
        if isinstance(leaf, np.ndarray):
            return leaf.ctypes.data, leaf.shape, leaf.strides, leaf.dtype
        return id(leaf)

    return first is second or repr(map_nest(where, first)) == repr(map_nest(where, second))


def copy_into(target: torch.Tensor, source: Any, name: str) -> None:
    """Copy an array or a tensor into a tensor of the same shape and type; raises ValueError if they differ."""
    check_source(target, source, name)
    with torch.no_grad():
        target.copy_(tensor_like(target, source))


def tensor_like(target: torch.Tensor, source: Any) -> torch.Tensor:
    """Return an array of `to_arrays`, or a tensor, as a tensor of the target's type."""
    # read-only arrays, as from Ray, are copied: torch.from_numpy warns about them
    array = source if isinstance(source, torch.Tensor) or source.flags.writeable else np.array(source)
    made = array if isinstance(array, torch.Tensor) else torch.from_numpy(array)
    return made.view(target.dtype) if made.dtype != target.dtype else made


def check_source(target: torch.Tensor, source: Any, name: str) -> None:
    """Raise ValueError unless the source has the shape and type that `to_arrays` or `to_clones` give."""
    bits = torch.uint16 if target.dtype == torch.bfloat16 else target.dtype
    array = torch.empty(0, dtype=bits).numpy().dtype
    wanted = target.dtype if isinstance(source, torch.Tensor) else array
    if tuple(target.shape) != tuple(source.shape) or source.dtype != wanted:
        raise ValueError(
            f"{name}: the copied array must be {tuple(target.shape)} of {target.dtype}, "
            f"but is {tuple(source.shape)} of {source.dtype}."
        )
