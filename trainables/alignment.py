"""Inner products of groups' gradients, as DoGE scores them: block by block, never as one flat matrix."""

from collections.abc import Sequence

import torch
from torch import Tensor

Gradient = tuple[Tensor, ...]  # one tensor a parameter


def gradients(losses: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Gradient]:
    """Return each loss's gradient; the losses may share a graph, which is freed after the last one.

    A parameter that a loss does not depend on has a gradient of zeros. A loss that is NaN, of a group without
    a row, has gradients of NaN.
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
    """Return the gradient of the sum of weight * loss; a group of weight 0 is left out, also if it is NaN."""
    counted = [(gradient, weight) for gradient, weight in zip(groups, weights, strict=True) if weight]
    if not counted:
        raise ValueError("a group must have a weight above 0.")
    blocks = zip(*(gradient for gradient, _ in counted), strict=True)
    return tuple(
        torch.stack([weight * part for part, (_, weight) in zip(block, counted, strict=True)]).sum(dim=0)
        for block in blocks
    )
