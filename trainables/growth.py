"""A decoder becomes a larger or a smaller one by an exact map of its weights and slots (Zou et al., 2024).

Widened, each number of the stream, each head and each number of the inner layer is there `factor` times, and
each matrix is divided by it, so the logits stay the same. The reference halves the embedding instead, which
changes the stream against what blocks add; here the gain of the last norm is divided. Deepened, each layer is
followed by others. A decoder that is narrowed or made flat takes means over what it merges, or sums where its
inputs are merged, so that it undoes the other map exactly.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.trainables.settings import DecoderShape

NamedArrays = Mapping[str, NDArray[Any]]
Over = Callable[..., Any]  # a sum or a mean over an axis
Depth = Literal["zero", "halves", "copy"]
IN_LAYER = "blocks."
EMBEDDING, LAST_GAIN = "embedding.weight", "norm.weight"
PROJECT, WRITES = "project.weight", ("output.weight", "fall.weight")  # WRITES: these write to the stream
MATRICES = (PROJECT, *WRITES, "rise.weight")
SQUARES = {"exp_avg_sq"}  # slots that hold squares of gradients; the others are like gradients


class Growth(NamedTuple):
    """How many times a decoder is as wide and as deep as another."""

    width: int
    depth: int
    grows: bool  # False: it is so many times as narrow and as flat

    def in_words(self, depth: Depth) -> str:
        if self.width == self.depth == 1:
            return "same shape"
        verb = "grown" if self.grows else "shrunk"
        how = f" ({depth})" if self.depth > 1 else ""
        return f"{verb}: width by {self.width}, layers by {self.depth}{how}"


def growth_between(old: DecoderShape, new: DecoderShape) -> Growth:
    """Return how one shape becomes the other; raises ValueError where no whole map leads there."""
    if max(old.experts, new.experts) > 1:
        refuse_change(old, new)
    for grows, (small, large) in ((True, (old, new)), (False, (new, old))):
        width, depth = large.width // small.width, large.layers // max(small.layers, 1)
        # heads keep their width, so that angles of positions stay
        fits = [
            (small.width * width, small.heads * width, small.layers * depth),
            (round(small.expansion * small.width) * width,),
        ]
        if fits == [(large.width, large.heads, large.layers), (round(large.expansion * large.width),)]:
            return Growth(width, depth, grows)
    names = ("layers", "heads", "width", "expansion")
    told = [", ".join(f"{name} {getattr(each, name):g}" for name in names) for each in (old, new)]
    raise ValueError(
        f"a decoder must become so many times as wide, with as many times the heads, and so many times as deep "
        f"(or the reverse), but it is {told[0]} and would be {told[1]}."
    )


def refuse_change(old: DecoderShape, new: DecoderShape) -> None:
    """Raise ValueError unless a decoder with experts keeps what its weights and its gate are."""
    had, has = kept_of(old), kept_of(new)
    if name := next((name for name in had if had[name] != has[name]), ""):
        raise ValueError(
            f"a decoder with experts must keep its layers, heads, widths, experts and gate: it neither grows "
            f"nor shrinks, but it has {name} {had[name]} and would have {has[name]}."
        )


def kept_of(shape: DecoderShape) -> dict[str, int | str]:
    """Return what must stay, by its name in words."""
    found = {name: getattr(shape, name) for name in ("experts", "layers", "heads", "width", "gate")}
    return found | {"feed-forward width": round(shape.expansion * shape.width)}


def grow_weights(weights: NamedArrays, growth: Growth, depth: Depth = "zero") -> dict[str, NDArray[Any]]:
    """Return a decoder's weights as those of the grown or shrunk one; raises ValueError for other weights."""
    refuse_others(weights)
    if growth.grows:
        wide = {name: widened(name, value, growth.width) for name, value in weights.items()}
        return deepened(wide, growth.depth, depth)
    flat = flattened(weights, growth.depth, depth)
    return {name: narrowed(name, value, growth.width) for name, value in flat.items()}


def grow_slots(slots: NamedArrays, growth: Growth, kind: str) -> dict[str, NDArray[Any]]:
    """Return one kind of slots, such as exp_avg, by the name of their weight; new layers begin with zeros.

    Gradients of the widened decoder are those of the small one divided by the factor, but for the last gain.
    """
    power = 2 if kind in SQUARES else 1

    def scale(name: str) -> float:
        return 1.0 if name == LAST_GAIN else float(growth.width) ** power

    if growth.grows:
        wide = {name: repeated(name, value, growth.width) / scale(name) for name, value in slots.items()}
        return by_layer(wide, lambda name, value, place: 0 * value if place else value, growth.depth)
    flat = merged(slots, growth.depth, lambda name: np.mean)
    return {
        name: folded(name, value, growth.width, np.mean, np.mean) * scale(name) for name, value in flat.items()
    }


def mixed(own: NamedArrays, other: NamedArrays, share: float) -> dict[str, NDArray[Any]]:
    """Return `(1 - share) * own + share * other`, weight by weight; both must have the same shapes."""
    if own.keys() != other.keys() or any(own[name].shape != other[name].shape for name in own):
        raise ValueError("weights must be mixed with those of a network of the same shapes.")
    return {
        name: ((1 - share) * own[name] + share * other[name]).astype(other[name].dtype, copy=False)
        for name in own
    }


def refuse_others(weights: NamedArrays) -> None:
    gains = ("attention_norm.weight", "feed_norm.weight")
    for name in weights:
        inner = name.startswith(IN_LAYER) and name.endswith(MATRICES + gains)
        if not inner and name not in (EMBEDDING, LAST_GAIN):
            raise ValueError(f"only the weights of a plain decoder can grow or shrink, but there is {name}.")


def widened(name: str, value: NDArray[Any], factor: int) -> NDArray[Any]:
    divided = name.endswith(MATRICES) or name == LAST_GAIN
    found = repeated(name, value, factor)
    return found / factor if divided else found


def repeated(name: str, value: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return the array with each axis but that of the vocabulary repeated; q, k and v each by itself."""
    if name == EMBEDDING:
        return np.tile(value, (1, factor))
    if name.endswith(PROJECT):
        parts = np.tile(value.reshape(3, -1, value.shape[1]), (1, factor, factor))
        return parts.reshape(-1, parts.shape[-1])
    return np.tile(value, (factor,) * value.ndim)


def narrowed(name: str, value: NDArray[Any], factor: int) -> NDArray[Any]:
    # the last gain is a sum, as it was divided
    return folded(name, value, factor, np.sum if name == LAST_GAIN else np.mean, np.sum)


def folded(name: str, value: NDArray[Any], factor: int, over_out: Over, over_in: Over) -> NDArray[Any]:
    """Return the array with its repeats merged, those of outputs and of inputs each by a function."""
    if name == EMBEDDING:
        return np.asarray(over_out(value.reshape(len(value), factor, -1), axis=1))
    if value.ndim == 1:
        return np.asarray(over_out(value.reshape(factor, -1), axis=0))
    inputs = over_in(value.reshape(len(value), factor, -1), axis=1)
    parts = inputs.reshape(3 if name.endswith(PROJECT) else 1, factor, -1, inputs.shape[1])
    return np.asarray(over_out(parts, axis=1).reshape(-1, inputs.shape[1]))


def deepened(weights: NamedArrays, factor: int, depth: Depth) -> dict[str, NDArray[Any]]:
    """Return each layer followed by `factor - 1` copies of it.

    With `zero` these write nothing to the stream yet, and learn to from their first step; the logits stay. With
    `halves` each copy writes its share, with `copy` as much as the layer: both change the logits.
    """

    def written(name: str, value: NDArray[Any], place: int) -> NDArray[Any]:
        if not name.endswith(WRITES) or depth == "copy":
            return value.copy()
        return value / factor if depth == "halves" else value * (not place)

    return by_layer(weights, written, factor)


def by_layer(
    weights: NamedArrays, change: Callable[[str, NDArray[Any], int], NDArray[Any]], factor: int
) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name, value in weights.items():
        if not name.startswith(IN_LAYER):
            found[name] = value
            continue
        layer, _, inner = name.removeprefix(IN_LAYER).partition(".")
        for place in range(factor):
            found[f"{IN_LAYER}{int(layer) * factor + place}.{inner}"] = change(name, value, place)
    return found


def flattened(weights: NamedArrays, factor: int, depth: Depth) -> dict[str, NDArray[Any]]:
    """Return neighbouring layers as one: means, but for what writes to the stream, which is summed."""

    def over(name: str) -> Over:
        return np.sum if name.endswith(WRITES) and depth != "copy" else np.mean

    return merged(weights, factor, over)


def merged(weights: NamedArrays, factor: int, over: Callable[[str], Over]) -> dict[str, NDArray[Any]]:
    groups: dict[str, list[NDArray[Any]]] = {}
    for name, value in weights.items():
        key = name
        if name.startswith(IN_LAYER):
            layer, _, inner = name.removeprefix(IN_LAYER).partition(".")
            key = f"{IN_LAYER}{int(layer) // factor}.{inner}"
        groups.setdefault(key, []).append(value)
    return {
        name: np.asarray(over(name)(np.stack(values), axis=0), dtype=values[0].dtype)
        for name, values in groups.items()
    }
