"""Inner products of groups' gradients, by which DoGE scores the groups (Fan et al., 2024).

They are summed over one tensor after another, so that no matrix of all parameters is built.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Gradient = tuple[Tensor, ...]  # one tensor for each parameter


def gradients(losses: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Gradient]:
    """Return each loss's gradient; the losses may share a graph, which is freed after the last one.

    A parameter that a loss does not depend on has a gradient of zeros. The loss of a group without rows is
    NaN, and so are its gradients.
    """
    found = []
    for place, loss in enumerate(losses):
        slopes = torch.autograd.grad(
            loss,
            list(parameters),
            retain_graph=place < len(losses) - 1,
            allow_unused=True,
            materialize_grads=True,
        )
        found.append(tuple(slopes))
    return found


def inner_products(first: Sequence[Gradient], second: Sequence[Gradient]) -> Tensor:
    """Return (first, second) inner products in double precision, summed over the parameters' tensors."""
    total = torch.zeros(len(first), len(second), dtype=torch.float64, device=first[0][0].device)
    for block in range(len(first[0])):
        left = torch.stack([gradient[block].flatten() for gradient in first]).double()
        right = torch.stack([gradient[block].flatten() for gradient in second]).double()
        total += left @ right.T
    return total


def weighted(groups: Sequence[Gradient], weights: Sequence[float]) -> Gradient:
    """Return the gradient of the sum of weight * loss. A group of weight 0 is skipped, so it may be NaN.

    Raises ValueError if all weights are 0.
    """
    counted = [(gradient, weight) for gradient, weight in zip(groups, weights, strict=True) if weight]
    if not counted:
        raise ValueError(f"at least one group must have a weight above 0, got {list(weights)}.")
    blocks = zip(*(gradient for gradient, _ in counted), strict=True)
    return tuple(
        torch.stack([weight * part for part, (_, weight) in zip(block, counted, strict=True)]).sum(dim=0)
        for block in blocks
    )
