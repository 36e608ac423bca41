"""The small networks inside a large one, as plain settings that can be read without torch.

Sizes are whole numbers and never multipliers: int(768 * 0.708) is one unit short of 544.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np


class Subnet(NamedTuple):
    """One sub-network: which layers of the large one it keeps, and how many of the first rows and columns."""

    layers: tuple[int, ...]
    heads: int
    width: int
    inner: int  # width inside the feed-forward part
    head_width: int

    @property
    def attention(self) -> int:
        """The width of queries, keys and values, which may differ from that of the stream."""
        return self.heads * self.head_width

    def plain(self) -> dict[str, Any]:
        return self._asdict() | {"layers": list(self.layers)}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Subnet":
        return cls(**{**plain, "layers": tuple(plain["layers"])})


def kept_layers(depth: int, layers: int) -> tuple[int, ...]:
    """Return `depth` of all `layers`, spread evenly from the first on. Whole numbers keep this exact."""
    return tuple(place * layers // depth for place in range(depth))


@dataclass(frozen=True)
class SubSpace:
    """All combinations of four axes, within a network of `layers` whose heads are `head_width` wide.

    Compact sub-spaces interfere less with themselves than one large one (AutoDistil, 2022).
    """

    depths: tuple[int, ...]
    heads: tuple[int, ...]
    widths: tuple[int, ...]
    ratios: tuple[float, ...]  # inner width over width
    layers: int = 12
    head_width: int = 64

    def __post_init__(self) -> None:
        for name in ("depths", "heads", "widths", "ratios"):
            values = getattr(self, name)
            if not values or min(values) <= 0 or list(values) != sorted(set(values)):
                raise ValueError(f"{name} must be rising numbers above 0, got {list(values)}.")
        if len({int(self.widths[0] * ratio) for ratio in self.ratios}) < len(self.ratios):
            raise ValueError(f"ratios must differ by a unit of inner width, got {self.ratios}.")
        if max(self.depths) > self.layers:
            raise ValueError(f"depths must be at most the network's {self.layers} layers, got {self.depths}.")

    @property
    def axes(self) -> dict[str, tuple[float, ...]]:
        return {"depth": self.depths, "heads": self.heads, "width": self.widths, "ratio": self.ratios}

    def subnet(self, depth: int, heads: int, width: int, ratio: float) -> Subnet:
        layers = kept_layers(depth, self.layers)
        return Subnet(layers, heads, width, int(width * ratio), self.head_width)

    def at(self, places: Sequence[int]) -> Subnet:
        """Return the sub-network at a place on each axis, in the order of `axes`."""
        depth, heads, width, ratio = places
        return self.subnet(self.depths[depth], self.heads[heads], self.widths[width], self.ratios[ratio])

    def __len__(self) -> int:
        return len(self.depths) * len(self.heads) * len(self.widths) * len(self.ratios)

    def __iter__(self) -> Iterator[Subnet]:
        return itertools.starmap(self.subnet, itertools.product(*self.axes.values()))

    @cached_property
    def largest(self) -> Subnet:
        return self.at((-1, -1, -1, -1))

    @cached_property
    def smallest(self) -> Subnet:
        return self.at((0, 0, 0, 0))

    @property
    def whole(self) -> Subnet:
        """The network that contains every sub-network: all layers, at the largest widths."""
        return self.largest._replace(layers=tuple(range(self.layers)))

    def draw(self, rng: np.random.Generator, tilt: float = 0.0) -> Subnet:
        """Draw from each axis by itself; its largest value is e^tilt times as likely as its smallest."""
        places = []
        for values in self.axes.values():
            weights = np.exp(tilt * np.linspace(0.0, 1.0, len(values)))
            places.append(int(rng.choice(len(values), p=weights / weights.sum())))
        return self.at(tuple(places))


def sandwich(space: SubSpace, rng: np.random.Generator, count: int = 2, tilt: float = 0.0) -> list[Subnet]:
    """Return the largest, the smallest and `count` different others (Yu and Huang, 2019).

    The generator decides all: workers that seed it with the step train the same sub-networks.
    """
    chosen = [space.largest, space.smallest]
    if len(space) < 2 + count:
        return list(dict.fromkeys([*chosen, *space]))
    tries = 0
    while len(chosen) < 2 + count:
        tries += 1
        # a steep tilt may draw almost nothing but networks that are chosen already
        drawn = space.draw(rng, tilt if tries < 20 else 0.0)
        if drawn not in chosen:
            chosen.append(drawn)
    return chosen


AUTODISTIL = {
    "tiny": SubSpace((4, 5, 6, 7), (7, 8, 9, 10), (128, 160, 192, 224), (2.0, 2.5, 3.0, 3.5)),
    "small": SubSpace((9, 10, 11, 12), (7, 8, 9, 10), (256, 288, 320, 352), (2.5, 3.0, 3.5, 4.0)),
    "base": SubSpace((9, 10, 11, 12), (9, 10, 11, 12), (544, 576, 608, 640), (2.5, 3.0, 3.5, 4.0)),
}


@dataclass(frozen=True)
class ElasticShape:
    """Sizes of a network that can be cut, of either family."""

    vocabulary: int
    positions: int  # tokens of the longest row
    layers: int
    heads: int
    width: int
    inner: int
    head_width: int
    family: str = "encoder"  # or "decoder"
    epsilon: float = 1e-12  # the norms add it to the variance
    types: int = 2  # number of segment types; only encoders have them
    activation: str = "gelu"
    base: float = 10000.0  # base of the rotary angles; only decoders have them
    tied: bool = True  # whether a decoder's output layer has the embedding's weights

    @property
    def whole(self) -> Subnet:
        return Subnet(tuple(range(self.layers)), self.heads, self.width, self.inner, self.head_width)

    def cut(self, subnet: Subnet) -> "ElasticShape":
        """Return the shape of a sub-network alone; raises ValueError if it is larger than this one."""
        sizes = {name: getattr(subnet, name) for name in ("heads", "width", "inner", "head_width")}
        for name, size in sizes.items():
            if size > getattr(self, name) or (name == "head_width" and size != self.head_width):
                raise ValueError(f"{name} must fit into {getattr(self, name)}, got {size}.")
        if not subnet.layers or max(subnet.layers) >= self.layers:
            raise ValueError(f"layers must be below {self.layers}, got {subnet.layers}.")
        return replace(self, layers=len(subnet.layers), **sizes)

    def plain(self) -> dict[str, Any]:
        return asdict(self)
