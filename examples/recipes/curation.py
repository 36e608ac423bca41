"""A model that trains on what it wrote and people liked (Ferbach et al., 2024), exactly, without drawing.

Of K answers one is picked with a chance that grows with its reward, e^r. The next model fits the picks, or
a mixture with real rows of weight 1 to `weight`. Without real rows it ends at the best answer alone: watch
`distinct`.
"""

from itertools import product

import numpy as np

REAL = np.array([0.5, 0.3, 0.2])
REWARD = np.array([1.0, 2.0, 4.0])  # e^r of each answer


def curated(chance, reward, draws):
    """Return the distribution of the pick among `draws` answers: p(x) E[K e^r(x) / (sum of the K e^r)]."""
    factor = np.zeros(len(chance))
    for others in product(range(len(chance)), repeat=draws - 1):
        rest, weight = reward[list(others)].sum(), chance[list(others)].prod()
        factor += weight * draws * reward / (reward + rest)
    return chance * factor


class Curated:
    """A member whose weights are the chances of the answers; each step is a round of curation."""

    def __init__(self, recipe, hyperparameters, seed, device, draws=2):
        self.chance, self.trained, self.draws = np.full(len(REAL), 1 / len(REAL)), 0, draws
        self.hyperparameters = dict(hyperparameters)

    def train(self, steps):
        weight = self.hyperparameters["weight"]
        for _ in range(steps):
            self.chance = (REAL + weight * curated(self.chance, REWARD, self.draws)) / (1 + weight)
        self.trained += steps
        return float(-(REAL * np.log(self.chance)).sum())

    def evaluate(self, split="validation"):
        reward = float(self.chance @ REWARD)  # what people would say; a score of it alone asks for collapse
        return reward, {"real": float(-(REAL * np.log(self.chance)).sum())}

    def measure(self, split="validation"):
        return {"distinct": float(np.exp(-(self.chance * np.log(self.chance.clip(1e-12))).sum()))}

    def state(self):
        return {"weights": {"chance": self.chance}, "trained": self.trained}

    def load(self, state, hyperparameters):
        self.chance, self.trained = state["weights"]["chance"], int(state["trained"])
        self.hyperparameters = dict(hyperparameters)
