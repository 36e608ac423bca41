"""Unlabelled rows that may be of no known class, weighed by their margin (WAD: Du et al., 2023).

A teacher's features give each unlabelled row the class of its nearest labelled row, and a margin to the
second. The columns `label` and `margin` are made once; labelled rows have a margin of 1. Rows of no class
have margins near 0.
"""

import numpy as np
from torch import nn

from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy


def unit(features):
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def margins(labelled, labels, unlabelled):
    """Return each unlabelled row's class and margin: the best cosine to a row of any class, less the second."""
    cosine = unit(unlabelled) @ unit(labelled).T
    best = np.stack([cosine[:, labels == each].max(axis=1) for each in range(labels.max() + 1)], axis=1)
    order = np.sort(best, axis=1)
    return best.argmax(axis=1), order[:, -1] - order[:, -2]


def taken_in(losses, round_, rounds=5, alpha=0.1):
    """Return which unlabelled rows become labelled ones after a round from 1: those of the smallest losses."""
    count = round(alpha * max(1 - round_ / rounds, 0.0) ** 2 * len(losses))
    return np.argsort(losses, kind="stable")[:count]


class WeightAware(Network):
    takes, by_row, searched = {"columns"}, True, {"power"}
    inputs: int
    classes: int
    power: float = 1.0  # 0 takes all rows alike, more trusts clear ones alone

    def build(self):
        return nn.Sequential(nn.Linear(self.inputs, 32), nn.ReLU(), nn.Linear(32, self.classes))

    def loss(self, module, batch, numbers):
        # a mean over rows, and not over margins: else one row among strangers would count like many
        weight = batch["margin"].clamp(min=1e-6) ** numbers["power"] * (batch["margin"] > 0)
        return weight * cross_entropy(module(batch["x"]), batch["label"])

    def measures(self, module, rows):
        return {
            "accuracy": (module(rows["x"]).argmax(dim=-1) == rows["label"]).double(),
            "margin": rows["margin"],
        }
