"""What DoReMi and DoGE share: a proxy phase that weighs the groups' losses; the mean weights are the answer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies.mixers.mixer import Groups, Outcome, State, Wish
from policies.mixing import Vector, exponentiated


@dataclass(frozen=True)
class Proxy(ABC):
    """Draws groups equally and trains on the sum of weight * mean loss; a score a step moves the weights.

    That is the proxy, for the first `proxy_share` of the steps; the others are trained at its `answer`. The
    papers train the proxy and the model that uses the answer in two runs: with a share of 1 the whole run is
    the proxy, and its answer is for another run, as `Fixed`.
    """

    rate: float = 1.0
    every: int = 1  # steps that are trained with the same weights
    smoothing: float = 1e-3  # of the weights towards uniform
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
        if groups.batch * self.every < groups.count:
            raise ValueError(
                f"each of {groups.count} groups must be seen between two updates, but {self.every} steps of "
                f"{groups.batch} rows are fewer: give a larger batch or every."
            )

    def start(self, groups: Groups, prior: Vector | None, seed: int) -> State:
        self.check(groups)
        base = np.full(groups.count, 1 / groups.count) if prior is None else prior
        return {
            "base": base,
            "weights": base,
            "scores": np.zeros(groups.count),  # the last one of each group
            "sum": np.zeros(groups.count),
            "updates": 0,
        }

    def wish(self, groups: Groups, state: State, step: int, left: int) -> Wish:
        turn = round(self.proxy_share * groups.steps)
        if step >= turn:
            return Wish(left, mean_weights(state))
        uniform = np.full(groups.count, 1 / groups.count)
        steps = min(self.every, turn - step, left)
        return Wish(steps, uniform, self.signals, "proxy", weights=state["weights"])

    def learn(self, groups: Groups, state: State, wish: Wish, outcome: Outcome) -> State:
        if wish.weights is None:
            return state
        weights, scores, total = state["weights"], state["scores"], state["sum"]
        found = self.scores(groups, outcome)
        for measured in found:
            # a group that is absent from a batch keeps its last score
            scores = np.where(np.isfinite(measured), measured, scores)
            weights = exponentiated(weights, scores, self.rate)
            weights = (1 - self.smoothing) * weights + self.smoothing / groups.count
            total = total + weights
        updates = state["updates"] + len(found)
        return state | {"weights": weights, "scores": scores, "sum": total, "updates": updates}

    @abstractmethod
    def scores(self, groups: Groups, outcome: Outcome) -> Vector:
        """Return a score a step, (steps, groups); not finite where a group was not measured."""


def answer(state: State) -> Vector:
    """Return what a run's proxy has found, (groups,)."""
    return mean_weights(state["policy"])


def mean_weights(policy: State) -> Vector:
    """Return the mean over the proxy's updates of the weights, not the last ones."""
    return np.asarray(policy["sum"] / policy["updates"]) if policy["updates"] else np.array(policy["base"])
