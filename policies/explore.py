"""Explore rules: how a clone's hyperparameters are varied, one by one, inside their domains."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from policies.space import Constant, Domain, Hyperparameters, Space


class Explore(Protocol):
    def vary(self, domain: Domain, value: Any, rng: np.random.Generator) -> Any:
        """Return a new value of this domain; `rng` serves this value alone."""


@dataclass(frozen=True)
class Perturb:
    """Drawn again with probability `resample`, else multiplied by one of `factors` (Jaderberg et al., 2017).

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
class Resample:
    """Drawn again from the domain, whatever the donor had."""

    def vary(self, domain: Domain, value: Any, rng: np.random.Generator) -> Any:
        return domain.sample(rng)


@dataclass(frozen=True)
class Additive:
    """A normal step of `scale` times the domain's width (in the logarithm where it is log), kept inside."""

    scale: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise ValueError(f"scale must be in (0, 1], but got {self.scale}.")

    def vary(self, domain: Domain, value: Any, rng: np.random.Generator) -> Any:
        return domain.shift(value, self.scale * float(rng.standard_normal()), rng)


EXPLORES: dict[str, type] = {"perturb": Perturb, "resample": Resample, "additive": Additive}


def explore(
    rule: Explore,
    space: Space,
    donor: Hyperparameters,
    own: Hyperparameters,
    rng: np.random.Generator,
) -> Hyperparameters:
    """Return the donor's hyperparameters varied; constants stay the member's `own`."""
    varied: Hyperparameters = {}
    for name, part in space.items():
        # a generator for each, so that what one domain draws does not shift the next one's numbers
        stream = np.random.default_rng(rng.integers(2**63))
        if isinstance(part, Mapping):
            varied[name] = explore(rule, part, donor[name], own[name], stream)
        elif isinstance(part, Constant):
            varied[name] = own[name]
        else:
            varied[name] = rule.vary(part, donor[name], stream)
    return varied
