"""What several objectives compute: all of it works under vmap, and has finite gradients everywhere."""

import torch
from torch import Tensor

from shoal.trainables.searched_numbers import FloatOrTensor

LEAST_CHANCE = (
    1e-6  # probabilities that are raised to a power stay above it: the power's slope would be infinite
)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + e^x), which does not overflow."""
    return torch.logaddexp(x, torch.zeros_like(x))


def unit(vectors: Tensor) -> Tensor:
    """Return vectors `(..., width)` of length 1 in float32; one of length 0 stays 0."""
    vectors = vectors.float() if vectors.dtype in (torch.bfloat16, torch.float16) else vectors
    square = vectors.square().sum(dim=-1, keepdim=True)
    return vectors * torch.rsqrt(square.clamp(min=1e-24))


def own(rows: Tensor) -> Tensor:
    """Return the mask of each row with itself, `(rows, rows)`."""
    return torch.eye(len(rows), dtype=torch.bool, device=rows.device)


def log_sum(logits: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exp over the allowed places of the last axis, and whether there are any: `(rows,)`.

    Where there is none it is 0, and so is its gradient.
    """
    there = allowed.any(dim=-1)
    lowest = logits.masked_fill(~allowed, -torch.inf)
    # a row of nothing but -inf would have the gradient NaN
    safe = torch.where(there[..., None], lowest, torch.zeros_like(logits))
    return torch.where(there, safe.logsumexp(dim=-1), torch.zeros_like(safe[..., 0])), there


def log_mean(logits: Tensor, allowed: Tensor) -> Tensor:
    """Return the logarithm of the mean of e^logits over the allowed places of the last axis; 0 for none."""
    whole, _ = log_sum(logits, allowed)
    return whole - allowed.sum(dim=-1).clamp(min=1).to(whole.dtype).log()


def powered(probability: Tensor, power: FloatOrTensor) -> Tensor:
    return probability.clamp(min=LEAST_CHANCE).pow(power)
