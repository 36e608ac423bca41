"""Generators that go from noise to a point in one step: consistency training (Song and Dhariwal, 2024).

The network learns that a point with more noise and the same point with a little less lead to the same end. The
levels of noise become finer as training goes on.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.class_networks import HiddenLayers, scaled
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import FloatOrTensor

LEAST_NOISE, MOST_NOISE = 0.002, 80.0
DATA = 0.5  # deviation to which rows are scaled
BEND = 7.0  # how much denser levels lie near no noise
FIRST, LAST = 10, 1280  # levels at the start of training, and the most of them
COSINES = 256  # fixed random features by which samples and held-out rows are compared


class Consistency(Network):
    """Samples of a column `x` in one step. The score is minus the distance of samples and held-out rows.

    It never trains in a stack, since the number of levels is another in each step.
    """

    takes = frozenset({"columns"})
    by_row = True
    own_step = True
    searched = frozenset({"centre", "breadth", "softness"})
    features: int  # numbers of `x`
    x: str = "x"  # the column
    width: int = 128
    layers: int = 3
    centre: float = -1.1  # mean of the logarithm of the levels that are trained
    breadth: float = 2.0  # and its deviation
    softness: float = 0.00054  # distances below this, times the square root of the features, count as squares

    def build(self) -> nn.Module:
        body = HiddenLayers(self.features + 2, self.width, self.layers)
        return nn.ModuleDict({"body": body, "head": nn.Linear(self.width, self.features)})

    def ended(self, module: Any, x: Tensor, level: Tensor, rate: FloatOrTensor = 0.0) -> Tensor:
        """Return where noisy points `(rows, features)` lead from noise of these levels `(rows,)`."""
        t = level[:, None]
        apart = t - LEAST_NOISE
        told = torch.cat([x / (t.square() + DATA**2).sqrt(), t.log() / 4, (t.log() / 4).sin()], dim=1)
        found: Tensor = module["head"](module["body"](told, rate))
        skip = DATA**2 / (apart.square() + DATA**2)
        return skip * x + DATA * apart / (t.square() + DATA**2).sqrt() * found

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        x = scaled(batch[self.x]).flatten(start_dim=1)
        steps = noise_levels(level_count(self.trained, self.recipe.steps)).to(x)
        chances = level_chances(steps, float(numbers["centre"]), float(numbers["breadth"]))
        place = torch.multinomial(chances, len(x), replacement=True)
        near, far = steps[place], steps[place + 1]
        noise = torch.randn_like(x)
        # both passes must leave out the same activations
        drawn = torch.get_rng_state()
        ahead = self.ended(module, x + far[:, None] * noise, far, numbers["dropout"])
        torch.set_rng_state(drawn)
        with torch.no_grad():
            behind = self.ended(module, x + near[:, None] * noise, near, numbers["dropout"])
        soft = numbers["softness"] * math.sqrt(self.features)
        return soft_distance(ahead, behind, soft) / (far - near)

    def sampled_points(self, module: nn.Module, count: int) -> Tensor:
        """Return samples `(count, features)`, the same ones for the same weights."""
        noise = torch.randn(count, self.features, generator=torch.Generator().manual_seed(0))
        level = torch.full((count,), MOST_NOISE)
        return self.ended(module, MOST_NOISE * noise.to(self.device), level.to(self.device))

    def row_losses(self, module: nn.Module, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the squared distance of samples and rows in the mean of fixed features, for each row alike."""
        found = {}
        for group, each in rows.items():
            x = scaled(each[self.x]).flatten(start_dim=1)
            apart = random_features(x).mean(dim=0) - random_features(self.sampled_points(module, 1024)).mean(
                dim=0
            )
            found[group] = apart.square().sum().expand(len(x))
        return found


def noise_levels(count: int) -> Tensor:
    """Return so many levels of noise and one more, from the least to the most."""
    low, high = LEAST_NOISE ** (1 / BEND), MOST_NOISE ** (1 / BEND)
    return (low + torch.arange(count + 1, dtype=torch.float64) / count * (high - low)) ** BEND


def level_count(step: int, steps: int) -> int:
    """Return how many levels a step trains by: they double eight times in a training."""
    return int(min(FIRST * 2 ** (step // max(steps // 8, 1)), LAST))


def level_chances(steps: Tensor, centre: float, spread: float) -> Tensor:
    """Return the chance of each pair of neighbours, of a normal law on the logarithm: `(levels - 1,)`."""
    below = torch.erf((steps.log() - centre) / (math.sqrt(2) * spread))
    found = (below[1:] - below[:-1]).clamp(min=1e-12)
    return found / found.sum()


def soft_distance(one: Tensor, other: Tensor, soft: FloatOrTensor) -> Tensor:
    """Return the pseudo-Huber distance of vectors, `(rows,)`: of the whole vector, and not of each number."""
    return ((one - other).square().sum(dim=1) + soft**2).sqrt() - soft


def random_features(x: Tensor) -> Tensor:
    """Return cosines of fixed random projections at three scales (Rahimi and Recht, 2007)."""
    draws = torch.Generator().manual_seed(1)
    slopes = torch.randn(x.shape[1], COSINES, generator=draws).to(x)
    scales = torch.tensor([0.5, 1.0, 4.0]).repeat(COSINES // 3 + 1)[:COSINES].to(x)
    shifts = 2 * math.pi * torch.rand(COSINES, generator=draws).to(x)
    return math.sqrt(2 / COSINES) * (x @ (slopes * scales) + shifts).cos()
