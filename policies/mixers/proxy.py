"""What DoReMi and DoGE share: a proxy phase that weighs the groups' losses; the mean weights are the answer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.mixers.mixer import Groups, Measurement, MixerState, Wish
from shoal.policies.mixing import exponentiated


@dataclass(frozen=True)
class ProxyPhase(ABC):
    """Draws groups equally and trains on the sum of weight * mean loss; a score a step moves the weights.

    A step is trained with the weights that its own score has moved, as in the papers. That is the proxy, for
    the first `proxy_share` of the steps; the others are trained at its `answer`. The papers train the proxy
    and the model that uses the answer in two runs: with a share of 1 the whole run is the proxy, and its
    answer is for another run, as `Fixed`. What a batch does not measure keeps its last value; a group that
    was never measured moves with the mean of the others.
    """

    rate: float = 1.0  # how far a step of the first phase moves the mixture
    every: int = 1  # steps; rows are dealt out over these together, so that small batches see all groups
    smoothing: float = 1e-3  # share of equal weights that is mixed in after each update
    proxy_share: float = 0.5
    signals: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.every < 1 or not self.rate >= 0 or not 0 <= self.smoothing <= 1:
            raise ValueError(
                f"every must be at least 1, rate at least 0 and smoothing in [0, 1], but got {self.every}, "
                f"{self.rate}, {self.smoothing}."
            )
        if not 0 < self.proxy_share <= 1:
            raise ValueError(f"proxy_share must be in (0, 1], but got {self.proxy_share}.")

    def check(self, groups: Groups) -> None:
        steps = min(self.every, self.proxy_steps(groups))
        if steps < 1:
            raise ValueError(
                f"proxy_share must make at least one step, but {self.proxy_share:g} of {groups.steps} steps is "
                f"{self.proxy_share * groups.steps:g}: give a larger share or more steps."
            )
        if groups.batch * steps < groups.count:
            raise ValueError(
                f"each of {groups.count} groups must be seen between two updates, but {steps} steps of "
                f"{groups.batch} rows are fewer: give a larger batch or every."
            )

    def proxy_steps(self, groups: Groups) -> int:
        return round(self.proxy_share * groups.steps)

    def start(self, groups: Groups, prior: Vector | None, seed: int) -> MixerState:
        self.check(groups)
        base = np.full(groups.count, 1 / groups.count) if prior is None else prior
        return {
            "base": base,
            "weights": base,
            "known": np.zeros(0),  # last measurement of each group; NaN where there is none
            "scores": np.zeros(groups.count),  # the weights last moved by these
            "sum": np.zeros(groups.count),
            "updates": 0,
        }

    def wish(self, groups: Groups, state: MixerState, step: int, left: int) -> Wish:
        turn = self.proxy_steps(groups)
        if step >= turn:
            return Wish(left, mean_weights(state))
        uniform = np.full(groups.count, 1 / groups.count)
        steps = min(self.every, turn - step, left)
        return Wish(steps, uniform, self.signals, "proxy", weights=state["weights"])

    def learn(self, groups: Groups, state: MixerState, wish: Wish, measurement: Measurement) -> MixerState:
        if wish.weights is None:
            return state
        for measured in self.measured(groups, measurement):
            state = self._moved(groups, state, measured)
        return state

    def follow(self, groups: Groups, state: MixerState, measurement: Measurement) -> MixerState:
        """Return the state after what one step has measured: the step itself is trained with its `weights`."""
        (measured,) = self.measured(groups, measurement)
        return self._moved(groups, state, measured)

    def _moved(self, groups: Groups, state: MixerState, measured: Vector) -> MixerState:
        before = state["known"] if len(state["known"]) else np.full_like(measured, np.nan)
        known = np.where(np.isfinite(measured), measured, before)
        scores = self.scores(groups, known)
        told = np.isfinite(scores)
        scores = np.where(told, scores, scores[told].mean() if told.any() else 0.0)
        weights = exponentiated(state["weights"], scores, self.rate)
        weights = (1 - self.smoothing) * weights + self.smoothing / groups.count
        return state | {
            "weights": weights,
            "known": known,
            "scores": scores,
            "sum": state["sum"] + weights,
            "updates": state["updates"] + 1,
        }

    @abstractmethod
    def measured(self, groups: Groups, measurement: Measurement) -> Vector:
        """Return the measurements of each step, (steps, groups, ...); not finite where there is none."""

    @abstractmethod
    def scores(self, groups: Groups, known: Vector) -> Vector:
        """Return each group's score from its last measurements, (groups,); NaN of one that has none."""


def answer(state: MixerState) -> Vector:
    """Return what a run's proxy has found, (groups,)."""
    return mean_weights(state["policy"])


def mean_weights(policy: MixerState) -> Vector:
    """Return the mean over the proxy's updates of the weights, not the last ones."""
    return np.asarray(policy["sum"] / policy["updates"]) if policy["updates"] else np.array(policy["base"])
