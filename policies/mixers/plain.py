"""Mixtures that learn nothing: the controls to hold every other policy against, and schedules by hand."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.mixers.mixer import Groups, Measurement, MixerState, Wish
from shoal.policies.mixing import normalise

NO_SIGNALS: frozenset[str] = frozenset()


class Settled(ABC):
    """Trains what is left at proportions that the groups alone settle."""

    signals: ClassVar[frozenset[str]] = NO_SIGNALS

    def check(self, groups: Groups) -> None:
        self.first(groups, 0)

    @abstractmethod
    def first(self, groups: Groups, seed: int) -> Vector:
        """Return the proportions of the whole run."""

    def start(self, groups: Groups, prior: Vector | None, seed: int) -> MixerState:
        return {"proportions": self.first(groups, seed)}

    def wish(self, groups: Groups, state: MixerState, step: int, left: int) -> Wish:
        return Wish(left, state["proportions"])

    def learn(self, groups: Groups, state: MixerState, wish: Wish, measurement: Measurement) -> MixerState:
        return state


@dataclass(frozen=True)
class Fixed(Settled):
    """The proportions that are given, one for each group."""

    proportions: tuple[float, ...]  # share of each group

    def __post_init__(self) -> None:
        sums_to_one(self.proportions)

    def first(self, groups: Groups, seed: int) -> Vector:
        return one_each(self.proportions, groups)


@dataclass(frozen=True)
class Stratified(Settled):
    """Equal shares."""

    def first(self, groups: Groups, seed: int) -> Vector:
        return np.full(groups.count, 1 / groups.count)


@dataclass(frozen=True)
class Temperature(Settled):
    """Shares in proportion to rows ** (1 / temperature): 1 is by size, above it flatter."""

    temperature: float = 2.0  # 1 keeps shares as large as the groups; larger makes them more equal

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, but got {self.temperature}.")

    def first(self, groups: Groups, seed: int) -> Vector:
        logs = np.log(groups.rows) / self.temperature
        return normalise(np.exp(logs - logs.max()))


@dataclass(frozen=True)
class Proportional(Settled):
    """Each group by its rows."""

    def first(self, groups: Groups, seed: int) -> Vector:
        return groups.shares


@dataclass(frozen=True)
class Random(Settled):
    """A mixture drawn once from a Dirichlet distribution of this strength for each group."""

    strength: float = 1.0  # larger draws lie nearer to equal shares

    def __post_init__(self) -> None:
        if not self.strength > 0:
            raise ValueError(f"strength must be above 0, but got {self.strength}.")

    def first(self, groups: Groups, seed: int) -> Vector:
        rng = np.random.default_rng(seed)
        return rng.dirichlet(np.full(groups.count, self.strength))


@dataclass(frozen=True)
class Stages:
    """Proportions by steps: each stage `(from step, proportions)` holds until the next one's step."""

    stages: tuple[tuple[int, tuple[float, ...]], ...]  # mixtures one after another, each from a step on
    signals: ClassVar[frozenset[str]] = NO_SIGNALS

    def __post_init__(self) -> None:
        steps = [step for step, _ in self.stages]
        if not steps or steps[0] != 0 or steps != sorted(set(steps)):
            raise ValueError(f"stages must begin at step 0 and go on at rising steps, but got {steps}.")
        for _, proportions in self.stages:
            sums_to_one(proportions)

    def check(self, groups: Groups) -> None:
        for step, proportions in self.stages:
            one_each(proportions, groups)
            if step >= groups.steps:
                raise ValueError(
                    f"stages must begin within the run's {groups.steps} steps, but one does at {step}."
                )

    def start(self, groups: Groups, prior: Vector | None, seed: int) -> MixerState:
        self.check(groups)
        return {}

    def wish(self, groups: Groups, state: MixerState, step: int, left: int) -> Wish:
        return wish_of_stage(self.stages, step, left)

    def learn(self, groups: Groups, state: MixerState, wish: Wish, measurement: Measurement) -> MixerState:
        return state


@dataclass(frozen=True)
class EndUpsampling:
    """One mixture, and another for the last `share` of the steps (Blakeney et al., 2024).

    Without a `base`, groups get shares by their rows in the first phase. In the paper shares of 0.1 to 0.2 do
    well. The group named `without` is left out of the last phase and gives its share to the others: compared
    with a run that has it, this shows what the group is worth. Aioli can choose the last mixture from data:
    give it a `prior` for the first `prior_steps`, and let one round follow.
    """

    final: tuple[float, ...]  # share of each group at the end
    share: float = 0.2
    base: tuple[float, ...] = ()
    without: str = ""  # a group that is left out of the last phase
    signals: ClassVar[frozenset[str]] = NO_SIGNALS

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be in [0, 1], but got {self.share}.")
        sums_to_one(self.final)
        if self.base:
            sums_to_one(self.base)

    def check(self, groups: Groups) -> None:
        if self.share and not self.last_steps(groups):
            raise ValueError(
                f"share must make at least one step, but {self.share:g} of {groups.steps} steps is "
                f"{self.share * groups.steps:g}: give a larger share, or 0 for none."
            )
        if self.without not in ("", *groups.names):
            raise ValueError(f"without must be one of {groups.names}, but got {self.without!r}.")
        if self.base:
            one_each(self.base, groups)
        self.last(groups)

    def last_steps(self, groups: Groups) -> int:
        return round(self.share * groups.steps)

    def last(self, groups: Groups) -> Vector:
        """Return the proportions of the last phase."""
        kept = one_each(self.final, groups) * [name != self.without for name in groups.names]
        if not kept.any():
            raise ValueError(f"final must have another group than {self.without!r}, which is left out.")
        return normalise(kept)

    def start(self, groups: Groups, prior: Vector | None, seed: int) -> MixerState:
        self.check(groups)
        return {}

    def wish(self, groups: Groups, state: MixerState, step: int, left: int) -> Wish:
        turn = groups.steps - self.last_steps(groups)
        if step < turn:
            base = one_each(self.base, groups) if self.base else groups.shares
            return Wish(min(turn - step, left), base)
        return Wish(left, self.last(groups))

    def learn(self, groups: Groups, state: MixerState, wish: Wish, measurement: Measurement) -> MixerState:
        return state


def wish_of_stage(stages: Sequence[tuple[int, tuple[float, ...]]], step: int, left: int) -> Wish:
    """Return the stage that holds at a step, up to the next one."""
    begun = [place for place, (first, _) in enumerate(stages) if first <= step]
    after = [first for first, _ in stages if first > step]
    steps = min(left, after[0] - step) if after else left
    return Wish(steps, normalise(stages[begun[-1]][1]))


def sums_to_one(proportions: Sequence[float]) -> None:
    normalise(proportions)
    if abs(sum(proportions) - 1) > 1e-6:
        raise ValueError(f"proportions must sum to 1, but {list(proportions)} sum to {sum(proportions):.6g}.")


def one_each(proportions: Sequence[float], groups: Groups) -> Vector:
    if len(proportions) != groups.count:
        raise ValueError(
            f"proportions must be given for {groups.count} groups, {groups.names}, but got {len(proportions)}."
        )
    return normalise(proportions)
