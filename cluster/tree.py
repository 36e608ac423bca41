"""Nests of dicts, lists, numbers and arrays as the bytes of one safetensors file."""

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

ARRAY = "array"  # the key that stands for an array in the skeleton


def dumps(tree: Any) -> bytes:
    """Return the nest as safetensors: arrays under their paths, the rest as JSON in the header."""
    arrays: dict[str, NDArray[Any]] = {}
    skeleton = _pull(tree, "", arrays)
    return save(arrays, metadata={"tree": json.dumps(skeleton)})


def loads(content: bytes) -> Any:
    (length,) = struct.unpack("<Q", content[:8])  # a safetensors file begins with its header's length
    header = json.loads(content[8 : 8 + length])
    return _push(json.loads(header["__metadata__"]["tree"]), load(content))


def _pull(tree: Any, path: str, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(tree, np.ndarray):
        arrays[path] = np.ascontiguousarray(tree).reshape(tree.shape)
        return {ARRAY: path}
    if isinstance(tree, dict):
        assert ARRAY not in tree and all(isinstance(key, str) for key in tree)
        return {key: _pull(value, f"{path}/{key}", arrays) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_pull(value, f"{path}/{place}", arrays) for place, value in enumerate(tree)]
    return tree.item() if isinstance(tree, np.generic) else tree


def _push(skeleton: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(skeleton, dict):
        if ARRAY in skeleton:
            return arrays[skeleton[ARRAY]]
        return {key: _push(value, arrays) for key, value in skeleton.items()}
    if isinstance(skeleton, list):
        return [_push(value, arrays) for value in skeleton]
    return skeleton
