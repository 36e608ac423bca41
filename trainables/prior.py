"""A generalised Gaussian prior on matrices, as a step of its own beside the optimiser's (Wu et al., 2025).

The density is exp(-(|w| / scale)^shape) times a constant: with a shape of 2 it is normal, with 1 a Laplace. In
the loss Adam would divide the prior's gradient away, and weights would swing about 0. So each step shrinks
the weights directly, as AdamW decays them, and stops at 0.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from shoal.trainables.coding import UNCODED_BITS, coded_size
from shoal.trainables.span import local

NEAR_0 = 1e-3  # added to |w|: for shapes below 1 the force has a pole at 0
SHAPES = torch.arange(10, 301) / 100  # shapes that are told apart


def moment_ratio(shape: float) -> float:
    """Return E[w^2] / E[|w|]^2 of the distribution."""
    return math.exp(math.lgamma(1 / shape) + math.lgamma(3 / shape) - 2 * math.lgamma(2 / shape))


RATIOS = torch.tensor([moment_ratio(float(shape)) for shape in SHAPES], dtype=torch.float64)  # they fall


def fitted_shape(weights: Tensor) -> float:
    """Return the shape whose moments the weights have, without those that are exactly 0."""
    there = int(torch.count_nonzero(weights))
    if not there:
        return 2.0
    square = float(weights.square().sum(dtype=torch.float64)) / there
    mean = float(weights.abs().sum(dtype=torch.float64)) / there
    ratio = torch.tensor(square / mean**2, dtype=torch.float64)
    place = int(torch.searchsorted(-RATIOS, -ratio))
    return float(SHAPES[min(place, len(SHAPES) - 1)])


@torch.no_grad()
def shrink_to_zero(weights: Tensor, amount: float, shape: float = 0.0) -> None:
    """Move weights towards 0 by `amount` times the slope of |w|^shape, and no further than 0.

    With a shape of 0 it is the one that the weights have now. What is 0 stays so.
    """
    own = local(weights)
    power = shape or fitted_shape(own)
    size = own.abs()
    force = power * (size + NEAR_0) ** (power - 1) if power != 1 else torch.ones_like(size)
    own.copy_(own.sign() * (size - amount * force).clamp_(min=0))


def matrices_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that a prior is on: what trains, but for gains, biases and embeddings."""
    tables = {
        id(weight)
        for part in module.modules()
        if isinstance(part, nn.Embedding)
        for weight in part.parameters(recurse=False)
    }
    return {
        name: weight
        for name, weight in module.named_parameters()
        if weight.requires_grad and weight.dim() >= 2 and id(weight) not in tables
    }


def prior_cost(weights: Mapping[str, Tensor]) -> float:
    """Return the coded size of a member's weights, as a share of 16 bits for each in a matrix."""
    held = {name: local(weight).detach().float().cpu().numpy() for name, weight in weights.items()}
    return coded_size(held).bits / UNCODED_BITS


@torch.no_grad()
def draw_anew(weights: Mapping[str, Tensor], shape: float, rng: np.random.Generator) -> None:
    """Draw matrices from the distribution of this shape, each with the deviation that it has."""
    unit = math.sqrt(math.exp(math.lgamma(1 / shape) - math.lgamma(3 / shape)))
    for weight in weights.values():
        sizes = rng.gamma(1 / shape, size=tuple(weight.shape)) ** (1 / shape)
        signs = rng.choice((-1.0, 1.0), size=tuple(weight.shape))
        weight.copy_(torch.from_numpy(unit * sizes * signs) * float(weight.std()))
