"""Hyperparameters as arrays: numbers scaled to [0, 1] beside places in categories."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.space import (
    Bool,
    Categorical,
    Float,
    Hyperparameters,
    Int,
    Ordered,
    Path,
    Space,
    domains_of,
    frozen,
    value_at,
)

Array = NDArray[np.float64]
Places = NDArray[np.int64]
Number = Float | Int | Ordered


class Points(NamedTuple):
    numbers: Array  # (points, numbers) in [0, 1]
    categories: Places  # (points, categories)

    def taken(self, chosen: Any) -> "Points":
        return Points(self.numbers[chosen], self.categories[chosen])


class Coding(NamedTuple):
    """Which hyperparameters are which columns; constants are none."""

    numbers: dict[Path, Number]
    categories: dict[Path, tuple[Any, ...]]  # the values that the places stand for


def coding(space: Space) -> Coding:
    domains = domains_of(space)
    categories = {path: part.values for path, part in domains.items() if isinstance(part, Categorical | Bool)}
    return Coding(
        {path: part for path, part in domains.items() if isinstance(part, Float | Int | Ordered)}, categories
    )


def encode_points(coding: Coding, given: Sequence[Hyperparameters]) -> Points:
    numbers = np.zeros((len(given), len(coding.numbers)))
    categories = np.zeros((len(given), len(coding.categories)), dtype=np.int64)
    for column, (path, domain) in enumerate(coding.numbers.items()):
        values = [value_at(each, path) for each in given]
        if isinstance(domain, Ordered):
            values = [domain.place(value) for value in values]
        numbers[:, column] = _scaled(domain, np.array(values, dtype=np.float64))
    for column, (path, choices) in enumerate(coding.categories.items()):
        categories[:, column] = [choices.index(frozen(value_at(each, path))) for each in given]
    return Points(numbers, categories)


def snapped(coding: Coding, points: Points) -> Points:
    """Return the points moved to where a decoded one is: whole numbers lie on a grid."""
    numbers = np.clip(points.numbers, 0.0, 1.0)
    for column, domain in enumerate(coding.numbers.values()):
        if not isinstance(domain, Float):
            numbers[:, column] = _scaled(domain, _spread(domain, numbers[:, column]))
    return Points(numbers, points.categories)


def decode_point(coding: Coding, points: Points, row: int, model: Hyperparameters) -> Hyperparameters:
    """Return one of the points as hyperparameters; what is not coded is the `model`'s."""
    values: dict[Path, Any] = {}
    for column, (path, domain) in enumerate(coding.numbers.items()):
        number = float(_spread(domain, points.numbers[row : row + 1, column])[0])
        values[path] = number if isinstance(domain, Float) else int(number)
        if isinstance(domain, Ordered):
            values[path] = domain.values[int(number)]
    for column, (path, choices) in enumerate(coding.categories.items()):
        values[path] = choices[points.categories[row, column]]
    return _filled(model, values, ())


def _filled(model: Hyperparameters, values: Mapping[Path, Any], above: Path) -> Hyperparameters:
    filled: Hyperparameters = {}
    for name, own in model.items():
        path = *above, name
        inner = isinstance(own, Mapping) and path not in values
        filled[name] = _filled(own, values, path) if inner else values.get(path, own)
    return filled


def _axis(domain: Number) -> tuple[float, float]:
    """Return the ends of the domain's scale, on which it is even: the logarithm where it is log."""
    if isinstance(domain, Ordered):
        return 0.0, len(domain.values) - 1.0
    ends = np.array([domain.low, domain.high], dtype=np.float64)
    low, high = np.log(ends) if domain.log else ends
    return float(low), float(high)


def _scaled(domain: Number, numbers: Array) -> Array:
    low, high = _axis(domain)
    scale = np.log(numbers) if not isinstance(domain, Ordered) and domain.log else numbers
    return np.clip((scale - low) / (high - low), 0.0, 1.0)


def _spread(domain: Number, units: Array) -> Array:
    low, high = _axis(domain)
    numbers = low + np.clip(units, 0.0, 1.0) * (high - low)
    if isinstance(domain, Ordered):
        return np.rint(numbers)
    if domain.log:
        numbers = np.exp(numbers)
    # rounded, not cut off, so that the upper end is reached; exp(log(high)) may be just above high
    return np.clip(numbers if isinstance(domain, Float) else np.rint(numbers), domain.low, domain.high)
