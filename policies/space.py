"""Domains of hyperparameters: how each is sampled, varied and kept inside its bounds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

Hyperparameters = dict[str, Any]
Path = tuple[str, ...]  # the names on the way to a value, outermost first

# share of the larger bound's size; nearer to 0 than that, a number that may be negative moves by even steps
NEAR_ZERO = 0.1


def frozen(value: Any) -> Any:
    """Return a value of a hyperparameter in its one form: lists are tuples, and keys of mappings are words.

    A value must come back equal from a file, from a checkpoint and from another process, whatever each of
    them does to it. So ValueError refuses what text cannot hold, and NaN, which equals nothing.
    """
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("nan equals nothing, not even itself, so no value can be nan.")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict) and len({str(name) for name in value}) == len(value):
        return {str(name): frozen(item) for name, item in value.items()}
    raise ValueError(
        f"a value must be a number, a word, true, false, null, a list of such, or a mapping from words to "
        f"such, but got {value!r} ({type(value).__name__})."
    )


@dataclass(frozen=True)
class Float:
    """A real number in [low, high]; `log` samples it evenly over orders of magnitude.

    A perturbation multiplies it, so 0 of a domain that begins at 0 stays until it is drawn again. Where low is
    below 0, as products never change a sign, it multiplies what lies far above 0, divides what lies far below
    by the same, and in between moves by even steps through 0. So a factor above 1 always goes up.
    """

    low: float  # least value
    high: float  # largest value
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)

    def sample(self, rng: np.random.Generator) -> float:
        if not self.log:
            return float(rng.uniform(self.low, self.high))
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)  # exp(log(high)) may round to just above high

    def perturb(self, value: float, factor: float, rng: np.random.Generator) -> float:
        return min(max(self.varied(value, factor), self.low), self.high)

    def varied(self, value: float, factor: float) -> float:
        """Return the value as `factor` perturbs it, also outside the bounds; 1 / factor takes it back."""
        if self.low >= 0:
            return float(value) * factor
        near = NEAR_ZERO * max(abs(self.low), abs(self.high))
        return near * math.sinh(math.asinh(value / near) + math.log(factor))

    def shift(self, value: float, amount: float, rng: np.random.Generator) -> float:
        """Move by `amount` of the domain's width, in the logarithm if `log`; stops at the bounds."""
        if self.log:
            return self.perturb(value, (self.high / self.low) ** amount, rng)
        return min(max(value + amount * (self.high - self.low), self.low), self.high)

    def contains(self, value: Any) -> bool:
        return _is_number(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high]; a perturbation always moves it unless a bound stops it.

    It goes where that of a `Float` goes, by 1 at least.
    """

    low: int  # least value
    high: int  # largest value
    log: bool = False  # sample evenly over orders of magnitude

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)

    def sample(self, rng: np.random.Generator) -> int:
        if not self.log:
            return int(rng.integers(self.low, self.high + 1))
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high + 1)))
        return min(max(int(drawn), self.low), self.high)

    def perturb(self, value: int, factor: float, rng: np.random.Generator) -> int:
        # round(1 * 1.25) is 1 again: without a least move of one, 1 and 2 would be absorbing
        wide = Float(self.low, self.high)
        return self._moved(value, round(wide.varied(value, factor)) - value, factor > 1)

    def shift(self, value: int, amount: float, rng: np.random.Generator) -> int:
        wide = Float(self.low, self.high, self.log)
        return self._moved(value, round(wide.shift(value, amount, rng)) - value, amount > 0)

    def _moved(self, value: int, by: int, up: bool) -> int:
        move = max(abs(int(by)), 1)
        return min(max(int(value) + (move if up else -move), self.low), self.high)

    def contains(self, value: Any) -> bool:
        return _is_number(value) and float(value).is_integer() and self.low <= value <= self.high


@dataclass(frozen=True)
class Ordered:
    """One of `values`, whose neighbours are alike: a perturbation goes to a neighbour."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", frozen(self.values))
        _check_values(self.values)

    def sample(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]

    def perturb(self, value: Any, factor: float, rng: np.random.Generator) -> Any:
        return self._at(self.place(value) + (1 if factor > 1 else -1))

    def shift(self, value: Any, amount: float, rng: np.random.Generator) -> Any:
        places = max(round(abs(amount) * (len(self.values) - 1)), 1)
        return self._at(self.place(value) + (places if amount > 0 else -places))

    def place(self, value: Any) -> int:
        return self.values.index(frozen(value))

    def _at(self, place: int) -> Any:
        return self.values[min(max(place, 0), len(self.values) - 1)]

    def contains(self, value: Any) -> bool:
        return frozen(value) in self.values


@dataclass(frozen=True)
class Categorical:
    """One of `values` without order: never multiplied or shifted, only drawn again."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", frozen(self.values))
        _check_values(self.values)

    def sample(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]

    def perturb(self, value: Any, factor: float, rng: np.random.Generator) -> Any:
        return self.sample(rng)

    def shift(self, value: Any, amount: float, rng: np.random.Generator) -> Any:
        return self.sample(rng)

    def contains(self, value: Any) -> bool:
        return frozen(value) in self.values


@dataclass(frozen=True)
class Bool:
    """True or false; a perturbation draws it again."""

    values: ClassVar[tuple[bool, bool]] = (False, True)

    def sample(self, rng: np.random.Generator) -> bool:
        return bool(rng.integers(2))

    def perturb(self, value: bool, factor: float, rng: np.random.Generator) -> bool:
        return self.sample(rng)

    def shift(self, value: bool, amount: float, rng: np.random.Generator) -> bool:
        return self.sample(rng)

    def contains(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class Constant:
    """A value that belongs to the member (its seed, its shard): never varied and never cloned."""

    value: Any  # every member has it

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", frozen(self.value))

    def sample(self, rng: np.random.Generator) -> Any:
        return self.value

    def perturb(self, value: Any, factor: float, rng: np.random.Generator) -> Any:
        return value

    def shift(self, value: Any, amount: float, rng: np.random.Generator) -> Any:
        return value

    def contains(self, value: Any) -> bool:
        return True


Domain = Float | Int | Ordered | Categorical | Bool | Constant
Space = Mapping[str, "Domain | Space"]

DOMAINS: dict[str, type] = {
    "float": Float,
    "int": Int,
    "ordered": Ordered,
    "categorical": Categorical,
    "bool": Bool,
    "constant": Constant,
}


def sample_space(space: Space, rng: np.random.Generator) -> Hyperparameters:
    """Draw one value from each domain, in the order of the space; a space within it gives a dict within."""
    return {
        name: sample_space(part, rng) if isinstance(part, Mapping) else part.sample(rng)
        for name, part in space.items()
    }


def domains_of(space: Space, above: Path = ()) -> dict[Path, Domain]:
    """Return every domain of a space, also those of spaces within it, by its path."""
    found: dict[Path, Domain] = {}
    for name, part in space.items():
        path = *above, name
        found |= domains_of(part, path) if isinstance(part, Mapping) else {path: part}
    return found


def value_at(given: Hyperparameters, path: Path) -> Any:
    value: Any = given
    for name in path:
        value = value[name]
    return value


def nested(values: Mapping[Path, Any]) -> Hyperparameters:
    """Return values by their paths as hyperparameters, with a dict for each space within."""
    found: Hyperparameters = {}
    for path, value in values.items():
        inner = found
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_bounds(low: float, high: float, log: bool) -> None:
    if not math.isfinite(high - low):  # also of two numbers that are too far apart to draw between
        raise ValueError(f"low and high must be finite, and so must high - low, but got {low=}, {high=}.")
    if not low < high:
        raise ValueError(f"low < high must hold, but got {low=}, {high=}.")
    if log and low <= 0:
        raise ValueError(f"a log domain needs low > 0, but got {low=}.")


def _check_values(values: tuple[Any, ...]) -> None:
    if len(values) < 2 or any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError(f"values must be at least two and differ, but got {list(values)}.")
