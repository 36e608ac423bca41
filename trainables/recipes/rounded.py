"""A linear layer whose operands are rounded to few bits, in all of its three products: emulated.

Each product rounds its operands along the axis that it sums over. So a transposed operand is rounded again.
"""

from typing import Any

import torch
from torch import Tensor

from shoal.trainables.recipes.formats import BLOCK_SIZE, PLAIN_BITS, SCALE_BITS, format_of, in_blocks
from shoal.trainables.searched_numbers import FloatOrTensor


def is_rounded(bits: FloatOrTensor) -> bool:
    """Say whether anything must be rounded; members of a stack may differ."""
    return isinstance(bits, Tensor) or bits != PLAIN_BITS


def bits_a_number(bits: float) -> float:
    """Return how many bits a number takes, its part of the block's scale included."""
    return bits + (SCALE_BITS / BLOCK_SIZE if bits < 16 else 0.0)


def few_bits(x: Tensor, bits: FloatOrTensor, whole: bool, draw: bool = False) -> Tensor:
    """Return numbers `(rows, length)` rounded along the last axis; those of 32 bits stay as they are."""
    if not isinstance(bits, Tensor):
        return in_blocks(x.contiguous(), format_of(bits, whole), draw) if is_rounded(bits) else x
    return torch.where(bits == PLAIN_BITS, x, in_blocks(x.contiguous(), format_of(bits, whole), draw))


class RoundedProduct(torch.autograd.Function):
    """The product of rows `(rows, inputs)` and a weight `(outputs, inputs)`: `(rows, outputs)`.

    The forward pass rounds to the nearest. The backward pass does so too, or at random if `stochastic`, with a
    draw of its own for each operand. Otherwise the gradients are those of the unrounded product.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, bits: Any, whole: bool, stochastic: bool) -> Tensor:
        return few_bits(rows, bits, whole) @ few_bits(weight, bits, whole).T

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        rows, weight, bits, ctx.whole, ctx.stochastic = inputs
        ctx.bits = None if isinstance(bits, Tensor) else bits
        ctx.save_for_backward(rows, weight, *([bits] if isinstance(bits, Tensor) else []))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, weight, *tensor = ctx.saved_tensors
        bits = tensor[0] if tensor else ctx.bits
        told = bits, ctx.whole, ctx.stochastic
        of_rows = few_bits(gradient, *told) @ few_bits(weight.T, *told).T
        of_weight = few_bits(gradient.T, *told) @ few_bits(rows.T, *told).T
        return of_rows, of_weight, None, None, None
