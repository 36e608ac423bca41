"""Made-up training runs whose losses follow known laws of the mixture: what a mixing policy can be judged by.

A world's `train` takes one step on a mixture and its `losses` are what a validation pass would say, one
value for each sequence of each target.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.mixers.mixer import (
    ALIGNMENT,
    EXCESS,
    TRAINING,
    VALIDATION,
    Groups,
    Measurement,
    MixerState,
    Visit,
)
from shoal.policies.mixers.visits import BoundedMixing, begin_mixing, left, observe, plan


class World(Protocol):
    def train(self, mixture: Vector) -> None: ...

    def losses(self) -> tuple[Vector, ...]: ...


@dataclass
class Linear:
    """Each step a target's loss falls by A mixture, and by a drift that the mixture does not touch."""

    effects: Vector  # (targets, groups) A, a step
    loss: Vector  # (targets,)
    drift: Vector | float = 0.0  # (targets,) a step

    def train(self, mixture: Vector) -> None:
        self.loss = self.loss - self.effects @ mixture - self.drift

    def losses(self) -> tuple[Vector, ...]:
        return tuple(np.array([value]) for value in self.loss)


@dataclass
class Saturating:
    """Each step a target's distance from its floor shrinks by the share A mixture of it."""

    effects: Vector
    floors: Vector
    loss: Vector

    def train(self, mixture: Vector) -> None:
        self.loss = self.loss - self.effects @ mixture * (self.loss - self.floors)

    def losses(self) -> tuple[Vector, ...]:
        return tuple(np.array([value]) for value in self.loss)


@dataclass
class Noisy:
    """A world seen through sequences that differ in level and in how much each step teaches them."""

    world: Linear | Saturating
    sequences: int
    step_noise: float  # nats, of a sequence's loss at each step
    rng: np.random.Generator
    row_noise: float = 0.0  # nats, of all of a target's sequences at each step: which rows it was trained on
    shifts: list[Vector] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shifts = [self.rng.standard_normal(self.sequences) for _ in self.world.loss]

    def train(self, mixture: Vector) -> None:
        self.world.train(mixture)
        self.shifts = [
            shift
            + self.step_noise * self.rng.standard_normal(self.sequences)
            + self.row_noise * self.rng.standard_normal()
            for shift in self.shifts
        ]

    def losses(self) -> tuple[Vector, ...]:
        return tuple(loss + shift for loss, shift in zip(self.world.loss, self.shifts, strict=True))


def toy_world() -> Saturating:
    """Return three groups of unequal difficulty, of which the last also helps the second."""
    effects = 0.05 * np.array([[0.010, 0.002, 0.0], [0.001, 0.004, 0.0], [0.0, 0.003, 0.012]])
    return Saturating(effects, np.array([1.5, 2.0, 1.0]), np.full(3, 6.0))


def live(
    mixing: BoundedMixing,
    groups: Groups,
    world: World,
    seed: int = 0,
    state: MixerState | None = None,
    limit: int | None = None,
    measure: Callable[[Visit, World], Measurement] | None = None,
) -> Iterator[MixerState]:
    """Train a world to the end of the budget, from a given state or from the start; yield every state."""
    state = begin_mixing(mixing, groups, seed) if state is None else state
    while left(groups, state):
        visit, state = plan(mixing, groups, state, limit)
        for counts in visit.counts:
            world.train(counts / counts.sum())
        measurement = measured(visit, world) if measure is None else measure(visit, world)
        state = observe(mixing, groups, state, visit, measurement)
        yield state


def measured(visit: Visit, world: World) -> Measurement:
    assert not visit.signals & {TRAINING, EXCESS, ALIGNMENT}, "these worlds have only validation losses"
    return Measurement(validation=world.losses() if VALIDATION in visit.signals else None)
