"""The toy of the paper on population based training (Jaderberg et al., 2017, figure 2)."""

from typing import Any

import numpy as np

from shoal.trainables.member import SavedState, copies


class Toy:
    """Climb `Q = 1.2 - (a^2 + b^2)` by the surrogate's gradient, whose weights are h0 and h1.

    A member with h = (1, 0) or (0, 1) trains one axis and ends at 0.39; both together reach 1.2.
    """

    def __init__(self, hyperparameters: dict[str, Any], rate: float = 0.01):
        self.hyperparameters = dict(hyperparameters)
        self.rate = rate
        self.place = np.array([0.9, 0.9])
        self.trained = 0

    def train(self, steps: int) -> float:
        weights = np.array([self.hyperparameters["h0"], self.hyperparameters["h1"]])
        for _ in range(steps):
            self.place = self.place * (1 - 2 * self.rate * weights)
        self.trained += steps
        return -self.score()

    def score(self) -> float:
        return float(1.2 - (self.place**2).sum())

    def evaluate(self, split: str = "validation") -> tuple[float, dict[str, float]]:
        return self.score(), {}

    @copies
    def state(self) -> SavedState:
        return {"weights": {"place": self.place.copy()}, "trained": self.trained}

    @copies
    def load(self, state: SavedState, hyperparameters: dict[str, Any]) -> None:
        self.place = np.array(state["weights"]["place"])  # a copy: what Ray hands over is read-only
        self.trained = int(state["trained"])
        self.hyperparameters = dict(hyperparameters)
