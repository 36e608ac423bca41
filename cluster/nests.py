"""Nests of dicts, lists, tuples, numbers and arrays as the bytes of one safetensors file, and back again.

Arrays lie under their paths. The rest is a skeleton of JSON in the header, behind a digest of all. An object
with the key "array" in it is no dict of the nest, but stands for something that JSON has not.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
NEST = "nest"  # the key under which our digest and skeleton stand in the header
ARRAY = "array"  # the key of an array's path; None under it: the value stands beside it
# number types that safetensors knows, and its names for them; others are stored as bytes
STORED = {
    "?": "BOOL",
    "b": "I8",
    "B": "U8",
    "h": "I16",
    "H": "U16",
    "i": "I32",
    "I": "U32",
    "l": "I64",
    "L": "U64",
    "q": "I64",
    "Q": "U64",
    "e": "F16",
    "f": "F32",
    "d": "F64",
    "F": "C64",
}
TYPES = {"I64": "i8", "U64": "u8"} | {name: char for char, name in STORED.items() if char not in "lLqQ"}


def dumps(nest: Any) -> bytes:
    """Return the nest as bytes; raises TypeError if it holds what no file can give back."""
    return b"".join(in_pieces(nest))


def in_pieces(nest: Any) -> Iterator[bytes | memoryview]:
    """Return the bytes of `dumps` one after another: each array's are its own memory, and not copied.

    Raises TypeError at once if the nest holds what no file can give back.
    """
    arrays: Arrays = {}
    skeleton = json.dumps(_pull(nest, "", arrays, {}))
    return _written(f"{_digest(skeleton, arrays)} {skeleton}", arrays)


def _written(told: str, arrays: Arrays) -> Iterator[bytes | memoryview]:
    # the largest numbers come first, so that each array begins at a multiple of its own numbers' size
    order = sorted(arrays, key=lambda path: (-arrays[path].itemsize, path))
    header: dict[str, Any] = {"__metadata__": {NEST: told}}
    end = 0
    for path in order:
        array = arrays[path]
        begin, end = end, end + array.nbytes
        kind = STORED[array.dtype.char]
        header[path] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    yield from (arrays[path].reshape(-1).view(np.uint8).data for path in order)


def loads(content: bytes) -> Any:
    """Return the nest of such bytes; raises ValueError if they are not what `dumps` wrote.

    Its arrays lie in the bytes, so they cannot be written to.
    """
    try:
        (length,) = struct.unpack("<Q", content[:8])  # a safetensors file begins with its header's length
        header = json.loads(content[8 : 8 + length])
        said = header.pop("__metadata__")
        digest, _, skeleton = said[NEST].partition(" ") if NEST in said else ("", "", said["tree"])
        arrays = {path: _seen(content, 8 + length, told) for path, told in header.items()}
        if 8 + length + sum(array.nbytes for array in arrays.values()) != len(content):
            raise ValueError("it has another length than its header says")
        whole = digest in ("", _digest(skeleton, arrays))  # older files have no digest
        nest = _push(json.loads(skeleton), arrays) if whole else None
    except Exception as error:  # a file that is not ours may fail in any way
        raise ValueError(f"it is cut off, or no member's file ({error})") from error
    if not whole:
        raise ValueError("its content is not what was written")
    return nest


def _seen(content: bytes, start: int, told: Mapping[str, Any]) -> NDArray[Any]:
    """Return the array that a header tells of, in the memory of the content."""
    begin, end = told["data_offsets"]
    part = memoryview(content)[start + begin : start + end]
    return np.frombuffer(part, np.dtype(TYPES[told["dtype"]])).reshape(told["shape"])


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
