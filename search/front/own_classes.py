"""The Python files that `shoal init` writes beside a run file."""

CLASSIFIER = '''"""A classifier of images: `build` is its network, `loss` and `score` are its task."""

from functools import cache

import numpy as np
from torch import nn

from shoal.trainables.batches import Shuffled
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy


@cache
def data():
    """Return the rows to train on and the held-out ones: images (rows, ...) float32, labels (rows,) int64."""
    found = np.load("IMAGES")
    images, labels = found["images"].astype(np.float32), found["labels"].astype(np.int64)
    held_out = len(labels) // 10
    return (images[held_out:], labels[held_out:]), (images[:held_out], labels[:held_out])


class Classifier(Network):
    def __init__(self, recipe, hyperparameters, seed, device):
        rows, held_out = data()
        super().__init__(recipe, hyperparameters, Shuffled(rows, 32), {"validation": held_out}, seed, device)

    def build(self):
        """Return the network with its first weights."""
        images, labels = data()[0]
        return nn.Sequential(
            nn.Flatten(), nn.Linear(images[0].size, 64), nn.ReLU(), nn.Linear(64, int(labels.max()) + 1)
        )

    def loss(self, module, batch, numbers):
        """Return the loss of each row; `numbers` has the numbers of `training:`, searched or not."""
        images, labels = batch
        return cross_entropy(module(images), labels, numbers["label_smoothing"])

    def score(self, module, rows):
        """Return the score, of which more is better, and losses by group, of which there may be none."""
        images, labels = rows
        return (module(images).argmax(dim=-1) == labels).double().mean(), {}
'''

OWN = '''"""A member with a training loop of its own: here it descends a hill; put your model in its place."""

import numpy as np


class Mine:
    def __init__(self, recipe, hyperparameters, seed, device):
        self.rate = hyperparameters["rate"]
        self.weights = np.random.default_rng(seed).normal(size=2)
        self.trained = 0  # steps that these weights have had

    def train(self, steps):
        """Train on, and return the mean training loss."""
        total = 0.0
        for _ in range(steps):
            total += float((self.weights**2).sum())
            self.weights -= 2 * self.rate * self.weights
        self.trained += steps
        return total / steps

    def evaluate(self, split="validation"):
        """Return the score, of which more is better, and losses by group, of which there may be none."""
        return -float((self.weights**2).sum()), {}

    def state(self):
        """Return all that is needed to go on, the weights by name under "weights"."""
        return {"weights": {"hill": self.weights.copy()}, "trained": self.trained}

    def load(self, state, hyperparameters):
        """Take over another member's state, and go on with these hyperparameters."""
        self.weights, self.trained = np.array(state["weights"]["hill"]), state["trained"]
        self.rate = hyperparameters["rate"]
'''
