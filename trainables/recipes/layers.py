"""Layers that compute with a share of their weights, or with rounded numbers; else they are torch's own.

A layer becomes one of these in place, by its class. So names of weights, states and exports stay as they were.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoal.trainables.recipes.rounded import RoundedProduct, is_rounded
from shoal.trainables.searched_numbers import FloatOrTensor


class RecipeLinear(nn.Linear):
    """A linear layer, masked if it has a mask, and rounded to `bits` if these are fewer than 32."""

    mask_order: Tensor  # place of each weight in the order in which weights are there
    mask_count: Tensor  # so many are there
    _bits: FloatOrTensor = 32.0  # may differ between the members of a stack
    whole_numbers = False  # the elements of blocks are whole numbers, and no floating-point ones
    stochastic = False  # the backward pass rounds at random

    @property
    def bits(self) -> FloatOrTensor:
        return self._bits

    def round_to(self, bits: FloatOrTensor) -> None:
        """Take the bits of the passes to come: one number, or in a stack a scalar tensor."""
        self._bits = bits

    def forward(self, x: Tensor) -> Tensor:
        weight = weight_there(self)
        if not is_rounded(self.bits):
            return functional.linear(x, weight, self.bias)
        rows = x.reshape(-1, x.shape[-1])
        y = RoundedProduct.apply(rows, weight, self.bits, self.whole_numbers, self.stochastic)
        y = y.view(*x.shape[:-1], weight.shape[0])
        return y if self.bias is None else y + self.bias


class ThinConv1d(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, weight_there(self), self.bias)


class ThinConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, weight_there(self), self.bias)


def weight_there(layer: nn.Module) -> Tensor:
    """Return a layer's weight with 0 where no weight is, so that no gradient reaches it there."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    order = getattr(layer, "mask_order", None)
    if order is None:
        return weight
    return torch.where(
        order < layer.mask_count, weight, torch.zeros((), dtype=weight.dtype, device=weight.device)
    )
