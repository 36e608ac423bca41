"""Layers that use only the first rows and columns of their weights, and networks cut out of larger ones."""

import re
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoal.trainables.distill.spaces import ElasticShape, Subnet

ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
}
LAYER = re.compile(r"(?<=^blocks\.)\d+")


class Transformer(nn.Module):
    """A transformer whose `forward(tokens, mask, subnet)` may run a part of it; all weights stay in place."""

    shape: ElasticShape

    def __init__(self, shape: ElasticShape):
        super().__init__()
        self.shape = shape


Elastic = TypeVar("Elastic", bound=Transformer)


def linear(layer: nn.Linear, x: Tensor, rows: int) -> Tensor:
    """Apply the first `rows` of a layer to all columns of `x`. These are views: only they get gradients."""
    bias = layer.bias[:rows] if layer.bias is not None else None
    return functional.linear(x, layer.weight[:rows, : x.shape[-1]], bias)


def layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    width = x.shape[-1]
    return functional.layer_norm(x, (width,), layer.weight[:width], layer.bias[:width], layer.eps)


def root_norm(layer: nn.RMSNorm, x: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], layer.weight[: x.shape[-1]], layer.eps)


def attend(heads: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """Return attention over the tokens where `mask` is true.

    `heads` are queries, keys and values; they and the result are `(rows, heads, length, head_width)`.
    """
    q, k, v = heads
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def split_heads(x: Tensor, head_width: int) -> Tensor:
    """Return `(rows, length, heads * head_width)` as `(rows, heads, length, head_width)`."""
    return x.unflatten(-1, (-1, head_width)).transpose(1, 2)


def extract(network: Elastic, subnet: Subnet) -> Elastic:
    """Return the sub-network as a network of its own with weights of its own, on the same device."""
    alone = type(network)(network.shape.cut(subnet)).to(next(network.parameters()).device)
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for name, target in alone.named_parameters():
            source = weights[LAYER.sub(lambda found: str(subnet.layers[int(found.group())]), name)]
            target.copy_(source[tuple(slice(size) for size in target.shape)])
    return alone.train(network.training)
