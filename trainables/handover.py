"""What passes between members and those who keep their states: copied here, once, whatever a class does.

A class may hand out the arrays that it goes on training with, and keep those that it is given. So what `state`
returns is copied before anybody looks at it, and `load` gets what nobody else has. Methods marked with `copies`
do so themselves. A tensor travels as an array, since who keeps it need not know torch; `load` gets a tensor.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from shoal.trainables.arrays import to_arrays
from shoal.trainables.member import SavedState

TENSORS = "tensors of torch"  # the key of a state under which stand the paths and types of what were tensors
PLAIN = (type(None), bool, int, float, complex, str, bytes)  # values that cannot change
KEPT = "dicts, lists, tuples, numbers, words, numpy arrays and torch tensors"


def handed_out(state: Callable[[], SavedState]) -> SavedState:
    """Return what a bound `state` returns as a copy that its object changes no more."""
    found = state()
    if getattr(state, "copies", False):
        return found
    named = f"{type(getattr(state, '__self__', state)).__name__}.state()"
    tensors: list[list[Any]] = []
    copied: SavedState = _copied(found, named, [], {}, tensors)
    if tensors and not isinstance(copied, dict):
        raise TypeError(
            f"{named} must return a dict where it has tensors, but returned a {type(found).__name__}."
        )
    return copied | {TENSORS: tensors} if tensors else copied


def hand_in(load: Callable[..., None], state: SavedState, *others: Any) -> None:
    """Give a bound `load` a state of its own, and copies of what else it takes."""
    if not getattr(load, "copies", False):
        plain, tensors = state, {}
        if isinstance(state, Mapping) and TENSORS in state:
            plain = {key: value for key, value in state.items() if key != TENSORS}
            tensors = {tuple(path): kind for path, kind in state[TENSORS]}
        state = _restored(plain, (), {}, tensors)
    load(state, *deepcopy(others))


def _copied(nest: Any, named: str, path: list[Any], known: dict[Any, Any], tensors: list[list[Any]]) -> Any:
    """Return a copy of a nest without tensors, whose paths are noted; what shares all its memory still does."""
    if isinstance(nest, torch.Tensor | np.ndarray):
        array = known.get(place := place_in_memory(nest))
        if array is None:
            array = known[place] = _array(nest, named)
        if isinstance(nest, torch.Tensor):
            tensors.append([path, str(nest.dtype).removeprefix("torch.")])
        return array
    if isinstance(nest, np.generic) or type(nest) in PLAIN:
        return nest
    if isinstance(nest, Mapping):
        return {
            key: _copied(value, f"{named}[{key!r}]", [*path, key], known, tensors)
            for key, value in nest.items()
        }
    if type(nest) in (list, tuple):
        parts = [
            _copied(value, f"{named}[{place}]", [*path, place], known, tensors)
            for place, value in enumerate(nest)
        ]
        return parts if isinstance(nest, list) else tuple(parts)
    raise TypeError(
        f"{named} is a {type(nest).__name__}, which a checkpoint cannot keep: a state is made of {KEPT}."
    )


def place_in_memory(leaf: Any) -> Any:
    """Return what two leaves have in common only if they are the same memory, seen alike."""
    if isinstance(leaf, np.ndarray):
        return (leaf.ctypes.data, leaf.shape, leaf.strides, leaf.dtype.str) if leaf.size else id(leaf)
    if leaf.layout != torch.strided or not leaf.numel():
        return id(leaf)
    own = leaf.to_local() if isinstance(leaf, DTensor) else leaf
    return str(own.device), own.data_ptr(), own.shape, own.stride(), own.dtype


def _array(leaf: Any, named: str) -> Any:
    """Return an array or tensor as an array of its own; of a type that numpy has not, its bits."""
    if isinstance(leaf, torch.Tensor):
        if leaf.layout != torch.strided or leaf.is_quantized:
            raise TypeError(f"{named} is a tensor of {leaf.layout}, but must be dense.")
        try:
            return to_arrays(leaf)
        except TypeError:  # numpy has no numbers of a byte or less
            return to_arrays(leaf.detach().view(torch.uint8))
    if type(leaf) not in (np.ndarray, np.memmap):
        raise TypeError(f"{named} is a {type(leaf).__name__}, but must be a plain array: use numpy.asarray.")
    if leaf.dtype.hasobject or leaf.dtype.fields:
        raise TypeError(f"{named} is an array of {leaf.dtype}, but must be of numbers or words.")
    return np.array(leaf)


def _restored(
    nest: Any, path: tuple[Any, ...], known: dict[int, Any], tensors: Mapping[tuple[Any, ...], str]
) -> Any:
    """Return a copy of a nest, with tensors where there were some."""
    if isinstance(nest, Mapping):
        return {key: _restored(value, (*path, key), known, tensors) for key, value in nest.items()}
    if isinstance(nest, list | tuple):
        parts = [_restored(value, (*path, place), known, tensors) for place, value in enumerate(nest)]
        return parts if isinstance(nest, list) else tuple(parts)
    if not isinstance(nest, np.ndarray | torch.Tensor):
        return nest
    copied = known.get(id(nest))
    if copied is None:
        copied = known[id(nest)] = nest.detach().clone() if isinstance(nest, torch.Tensor) else np.array(nest)
    if path not in tensors or isinstance(copied, torch.Tensor):
        return copied
    made, kind = torch.from_numpy(copied), getattr(torch, tensors[path])
    return made if made.dtype == kind else made.view(kind)
