"""A mixture that looks best may be robust no more: dilution (Nguyen et al., 2022).

Two sources share a core feature; the second has a strong shortcut, which helps on held-out rows of both and
points the wrong way on shifted ones. Let the shifted rows count, as a group of `mixing.unseen`, and a
search finds it out.
"""

from collections.abc import Mapping

import numpy as np
from torch import nn

from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy

SHORTCUT = {"plain": 0.2, "tempting": 2.0}  # where the shortcut's mean lies, per source
CORE, TEST, SHIFTED = 1.0, 1.0, -0.5


def rows(count: int, shortcut: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return features `(count, 2)`, core and shortcut, and labels."""
    label = rng.integers(0, 2, count)
    means = (2 * label[:, None] - 1) * np.array([CORE, shortcut])
    return (means + rng.normal(size=(count, 2))).astype(np.float32), label


def source_rows(share: float, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of which `share` are of the plain source."""
    parts = [
        rows(round(count * part), SHORTCUT[name], rng)
        for name, part in (("plain", share), ("tempting", 1 - share))
    ]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def discriminant(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the direction from one class's mean to the other's; in each source classes spread alike."""
    return (features * (2 * labels[:, None] - 1)).mean(axis=0)


def dilution(mixture: Mapping[str, float], alone: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return by how much a mixture's loss on each target exceeds that of the best single group, in nats."""
    return {target: loss - min(single[target] for single in alone.values()) for target, loss in mixture.items()}


class Linear(Network):
    takes, by_row = {"columns"}, True

    def build(self):
        return nn.Linear(2, 2)

    def loss(self, module, batch, numbers):
        return cross_entropy(module(batch["x"]), batch["label"])
