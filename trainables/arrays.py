"""Between torch's values and plain numpy ones, which any process can read without torch."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor


def to_arrays(tree: Any) -> Any:
    """Return a copy of a nest of dicts and lists with every tensor as a numpy array."""
    if isinstance(tree, torch.Tensor):
        # of weights that are spread over processes this one's share
        own = (tree.to_local() if isinstance(tree, DTensor) else tree).detach()
        still = own.cpu()
        # numpy has no bfloat16: its bits travel as uint16
        array = (still.view(torch.uint16) if still.dtype == torch.bfloat16 else still).numpy()
        # what comes from a device has been copied once on its way
        return array.copy() if own.device.type == "cpu" else array
    if isinstance(tree, Mapping):
        return {str(key): to_arrays(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [to_arrays(value) for value in tree]
    return tree


def to_clones(tree: Any, device: torch.device) -> Any:
    """Return a copy of a nest with the device's tensors where they are, and every other one as an array."""
    if isinstance(tree, torch.Tensor) and tree.device.type == device.type:
        return (tree.to_local() if isinstance(tree, DTensor) else tree).detach().clone()
    if isinstance(tree, Mapping):
        return {str(key): to_clones(value, device) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [to_clones(value, device) for value in tree]
    return to_arrays(tree)


def map_nest(function: Callable[..., Any], *nests: Any) -> Any:
    """Return a nest like the first one of what the function makes of the leaves at the same places."""
    first = nests[0]
    if isinstance(first, Mapping):
        return {key: map_nest(function, *(nest[key] for nest in nests)) for key in first}
    if isinstance(first, list | tuple):
        return [map_nest(function, *parts) for parts in zip(*nests, strict=True)]
    return function(*nests)


def to_tensors(nest: Any, device: torch.device) -> Any:
    """Return a nest of arrays or tensors as tensors on a device; they may share the arrays' memory."""

    def move(leaf: Any) -> torch.Tensor:
        if isinstance(leaf, torch.Tensor):
            return leaf.to(device)
        # what Ray hands over is read-only, and torch warns of that
        return torch.from_numpy(leaf if leaf.flags.writeable else leaf.copy()).to(device)

    return map_nest(move, nest)


def stack(*leaves: Any) -> Any:
    return torch.stack(leaves) if isinstance(leaves[0], torch.Tensor) else np.stack(leaves)


def same_memory(first: Any, second: Any) -> bool:
    """Say whether two nests are of the same arrays, also where both are views; values are not looked at."""

    def where(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.device, leaf.data_ptr(), leaf.shape, leaf.stride(), leaf.dtype
        if isinstance(leaf, np.ndarray):
            return leaf.ctypes.data, leaf.shape, leaf.strides, leaf.dtype
        return id(leaf)

    return first is second or repr(map_nest(where, first)) == repr(map_nest(where, second))


def copy_into(target: torch.Tensor, source: Any, name: str) -> None:
    """Copy an array, or a tensor, into a tensor of the same shape and type."""
    check_source(target, source, name)
    with torch.no_grad():
        target.copy_(tensor_like(target, source))


def tensor_like(target: torch.Tensor, source: Any) -> torch.Tensor:
    """Return what was made of a tensor like the target as a tensor of the target's type."""
    # np.array: what Ray hands over is read-only, and torch warns of that
    made = source if isinstance(source, torch.Tensor) else torch.from_numpy(np.array(source))
    return made.view(target.dtype) if made.dtype != target.dtype else made


def check_source(target: torch.Tensor, source: Any, name: str) -> None:
    """Raise ValueError unless this is what `to_arrays` or `to_clones` makes of a tensor like the target."""
    bits = torch.uint16 if target.dtype == torch.bfloat16 else target.dtype
    array = torch.empty(0, dtype=bits).numpy().dtype
    wanted = target.dtype if isinstance(source, torch.Tensor) else array
    if tuple(target.shape) != tuple(source.shape) or source.dtype != wanted:
        raise ValueError(
            f"{name}: what is copied must be {tuple(target.shape)} of {target.dtype}, "
            f"but is {tuple(source.shape)} of {source.dtype}."
        )
