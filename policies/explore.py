"""Explore rules: how a clone's hyperparameters are varied inside their domains."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from shoal.policies.space import Constant, Domain, Hyperparameters, Space


class Interval(NamedTuple):
    """What one member gained by training from one ready point to the next."""

    begun: int  # step at which the interval began
    before: float  # score of the weights at that step
    gain: float  # score per step; NaN if the member diverged
    hyperparameters: Hyperparameters
    explored: bool  # whether these hyperparameters were new in this interval


class Past(NamedTuple):
    """The part of a run's history that a rule may learn from when it chooses a clone's hyperparameters."""

    intervals: tuple[Interval, ...]  # the finished intervals, member by member, oldest first
    running: tuple[Hyperparameters, ...]  # the other members train under these from now on
    step: int  # steps that the donor's weights have trained
    score: float  # score of the donor


NO_PAST = Past((), (), 0, 0.0)


class Explore(Protocol):
    @property
    def memory(self) -> int:
        """How many finished intervals of each member the rule wants to see."""

    def propose(
        self, space: Space, donor: Hyperparameters, past: Past, rng: np.random.Generator
    ) -> Hyperparameters:
        """Return new hyperparameters for a clone of a member that has the `donor`'s."""


class OneByOne(ABC):
    """A rule that varies each hyperparameter by itself and learns nothing from the run."""

    memory = 0

    @abstractmethod
    def vary(self, domain: Domain, value: Any, rng: np.random.Generator) -> Any:
        """Return a new value of this domain; `rng` serves this value alone."""

    def propose(
        self, space: Space, donor: Hyperparameters, past: Past, rng: np.random.Generator
    ) -> Hyperparameters:
        varied: Hyperparameters = {}
        for name, part in space.items():
            # a generator for each, so that what one domain draws does not shift the next one's numbers
            stream = np.random.default_rng(rng.integers(2**63))
            if isinstance(part, Mapping):
                varied[name] = self.propose(part, donor[name], past, stream)
            else:
                varied[name] = self.vary(part, donor[name], stream)
        return varied


@dataclass(frozen=True)
class Perturb(OneByOne):
    """Draw a value again with probability `resample`, else multiply it by one of `factors`.

    This is PBT's own rule (Jaderberg et al., 2017).

    The default factors are reciprocal: the paper's 0.8 and 1.2 drift down by 2 % a decision.
    """

    resample: float = 0.25
    factors: tuple[float, float] = (0.8, 1.25)

    def __post_init__(self) -> None:
        if not 0 <= self.resample <= 1:
            raise ValueError(f"resample must be in [0, 1], but got {self.resample}.")
        if not 0 < self.factors[0] < 1 < self.factors[1] < math.inf:
            raise ValueError(f"factors must be one below and one above 1, but got {self.factors}.")

    def vary(self, domain: Domain, value: Any, rng: np.random.Generator) -> Any:
        if rng.random() < self.resample:
            return domain.sample(rng)
        return domain.perturb(value, self.factors[int(rng.random() < 0.5)], rng)


@dataclass(frozen=True)
class Resample(OneByOne):
    """Draw a value again from its domain, whatever the donor had."""

    def vary(self, domain: Domain, value: Any, rng: np.random.Generator) -> Any:
        return domain.sample(rng)


@dataclass(frozen=True)
class Additive(OneByOne):
    """Add a normal step of `scale` times the domain's width; it stays within the domain.

    Where the domain is logarithmic, width and step are those of the logarithm.
    """

    scale: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise ValueError(f"scale must be in (0, 1], but got {self.scale}.")

    def vary(self, domain: Domain, value: Any, rng: np.random.Generator) -> Any:
        return domain.shift(value, self.scale * float(rng.standard_normal()), rng)


def explore(
    rule: Explore,
    space: Space,
    donor: Hyperparameters,
    own: Hyperparameters,
    rng: np.random.Generator,
    past: Past = NO_PAST,
) -> Hyperparameters:
    """Return the donor's hyperparameters varied; constants stay the member's `own`."""
    return with_constants(space, rule.propose(space, donor, past, rng), own)


def with_constants(space: Space, given: Hyperparameters, own: Hyperparameters) -> Hyperparameters:
    """Return `given` with every constant as it is in the member's `own`."""
    kept: Hyperparameters = {}
    for name, part in space.items():
        if isinstance(part, Mapping):
            kept[name] = with_constants(part, given[name], own[name])
        else:
            kept[name] = own[name] if isinstance(part, Constant) else given[name]
    return kept
