"""Nests of dicts, lists, tuples, numbers and arrays as the bytes of one safetensors file, and back again.

Arrays lie under their paths. The rest is a skeleton of JSON in the header, behind a digest of all. An object
with the key "array" in it is no dict of the nest, but stands for something that JSON has not.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

Arrays = dict[str, NDArray[Any]]
NEST = "nest"  # the key under which our digest and skeleton stand in the header
ARRAY = "array"  # the key of an array's path; None under it: the value stands beside it
STORED = "?bBhHiIlLqQefdF"  # number types that safetensors knows; others are stored as bytes


def dumps(nest: Any) -> bytes:
    """Return the nest as bytes; raises TypeError if it holds what no file can give back."""
    arrays: Arrays = {}
    skeleton = json.dumps(_pull(nest, "", arrays, {}))
    # one string, since safetensors writes several in any order
    return save(arrays, metadata={NEST: f"{_digest(skeleton, arrays)} {skeleton}"})


def loads(content: bytes) -> Any:
    """Return the nest of such bytes; raises ValueError if they are not what `dumps` wrote."""
    try:
        (length,) = struct.unpack("<Q", content[:8])  # a safetensors file begins with its header's length
        said = json.loads(content[8 : 8 + length])["__metadata__"]
        digest, _, skeleton = said[NEST].partition(" ") if NEST in said else ("", "", said["tree"])
        arrays = load(content)
        whole = digest in ("", _digest(skeleton, arrays))  # older files have no digest
        nest = _push(json.loads(skeleton), arrays) if whole else None
    except Exception as error:  # safetensors has errors of its own
        raise ValueError(f"it is cut off, or no member's file ({error})") from error
    if not whole:
        raise ValueError("its content is not what was written")
    return nest


def _digest(skeleton: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    found = hashlib.blake2b(skeleton.encode(), digest_size=16)
    for path in sorted(arrays):
        array = arrays[path]
        found.update(f"{path} {array.dtype.str} {array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _pull(nest: Any, path: str, arrays: Arrays, known: dict[Any, dict[str, Any]]) -> Any:
    """Return a nest's skeleton; its arrays go into `arrays`, the same memory once: `known` says where it is."""
    if isinstance(nest, np.ndarray):
        return _pull_array(nest, path, arrays, known)
    if isinstance(nest, np.generic):
        return _pull_array(np.array(nest), path, arrays, {}) | {"scalar": True}
    if isinstance(nest, bytes):
        return _pull_array(np.frombuffer(nest, np.uint8), path, arrays, {}) | {"bytes": True}
    if isinstance(nest, complex):
        return {ARRAY: None, "complex": [nest.real, nest.imag]}
    if isinstance(nest, dict):
        if ARRAY not in nest and all(type(key) is str for key in nest):
            return {key: _pull(value, f"{path}/{key}", arrays, known) for key, value in nest.items()}
        pairs = [[key, _pull(value, f"{path}/{key}", arrays, known)] for key, value in nest.items()]
        return {ARRAY: None, "pairs": [[_pull(key, path, arrays, known), value] for key, value in pairs]}
    if isinstance(nest, list | tuple):
        parts = [_pull(value, f"{path}/{place}", arrays, known) for place, value in enumerate(nest)]
        return parts if isinstance(nest, list) else {ARRAY: None, "tuple": parts}
    return nest


def _pull_array(
    array: NDArray[Any], path: str, arrays: Arrays, known: dict[Any, dict[str, Any]]
) -> dict[str, Any]:
    """Take an array in and return what stands for it; one of the same memory again stands for the same one."""
    place = (array.ctypes.data, array.shape, array.strides, array.dtype.str)
    if array.size and place in known:
        return known[place]
    while path in arrays:  # a key may itself hold a stroke
        path += "'"
    whole = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.char in STORED and array.dtype.isnative:
        found: dict[str, Any] = {ARRAY: path}
    elif array.dtype.hasobject or array.dtype.fields:
        raise TypeError(f"{path}: an array of {array.dtype} cannot be written to a file.")
    else:
        found = {ARRAY: path, "dtype": array.dtype.str, "shape": list(array.shape)}
        whole = np.frombuffer(whole.tobytes(), np.uint8)
    arrays[path] = whole
    known[place] = found
    return found


def _push(skeleton: Any, arrays: Mapping[str, NDArray[Any]], known: dict[str, Any] | None = None) -> Any:
    known = {} if known is None else known
    if isinstance(skeleton, list):
        return [_push(value, arrays, known) for value in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if ARRAY not in skeleton:
        return {key: _push(value, arrays, known) for key, value in skeleton.items()}
    if (path := skeleton[ARRAY]) is not None:
        if path not in known:
            known[path] = _array(skeleton, arrays[path])
        array = known[path]
        if "bytes" in skeleton:
            return array.tobytes()
        return array[()] if "scalar" in skeleton else array
    if "complex" in skeleton:
        return complex(*skeleton["complex"])
    if "tuple" in skeleton:
        return tuple(_push(skeleton["tuple"], arrays, known))
    return {_push(key, arrays, known): _push(value, arrays, known) for key, value in skeleton["pairs"]}


def _array(skeleton: dict[str, Any], stored: NDArray[Any]) -> NDArray[Any]:
    if "dtype" not in skeleton:
        return stored
    whole = np.frombuffer(bytearray(stored.tobytes()), np.dtype(skeleton["dtype"]))
    return whole.reshape(skeleton["shape"])
