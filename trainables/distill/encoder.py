"""An encoder like BERT (Devlin et al., 2019) that can run as any of its sub-networks."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoal.trainables.distill.elastic import ACTIVATIONS, Transformer, attend, layer_norm, linear, split_heads
from shoal.trainables.distill.spaces import ElasticShape, Subnet


class LayerOutput(NamedTuple):
    """The output of a layer, or of a network's last layer: the residual stream and the attention's inputs."""

    hidden: Tensor  # the stream (rows, length, width)
    queries: Tensor  # (rows, length, attention width), like keys and values
    keys: Tensor
    values: Tensor


class Embedding(nn.Module):
    def __init__(self, shape: ElasticShape):
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.positions, shape.width)
        self.types = nn.Embedding(shape.types, shape.width)
        self.norm = nn.LayerNorm(shape.width, shape.epsilon)

    def forward(self, tokens: Tensor, width: int) -> Tensor:
        # each row is one text, so only the first segment's embedding is used
        place = self.positions.weight[: tokens.shape[1], :width] + self.types.weight[0, :width]
        # cut before the lookup: whole rows would cost as much as in the large network
        words = functional.embedding(tokens, self.words.weight[:, :width])
        return layer_norm(self.norm, words + place)


class ElasticEncoderBlock(nn.Module):
    def __init__(self, shape: ElasticShape):
        super().__init__()
        attention = shape.heads * shape.head_width
        self.activation = ACTIVATIONS[shape.activation]
        self.query = nn.Linear(shape.width, attention)
        self.key = nn.Linear(shape.width, attention)
        self.value = nn.Linear(shape.width, attention)
        self.output = nn.Linear(attention, shape.width)
        self.attention_norm = nn.LayerNorm(shape.width, shape.epsilon)
        self.rise = nn.Linear(shape.width, shape.inner)
        self.fall = nn.Linear(shape.inner, shape.width)
        self.feed_norm = nn.LayerNorm(shape.width, shape.epsilon)

    def forward(self, x: Tensor, mask: Tensor | None, subnet: Subnet) -> LayerOutput:
        q, k, v = (linear(part, x, subnet.attention) for part in (self.query, self.key, self.value))
        mixed = attend([split_heads(part, subnet.head_width) for part in (q, k, v)], mask)
        mixed = linear(self.output, mixed.transpose(1, 2).flatten(2), subnet.width)
        x = layer_norm(self.attention_norm, x + mixed)
        fed = linear(self.fall, self.activation(linear(self.rise, x, subnet.inner)), subnet.width)
        return LayerOutput(layer_norm(self.feed_norm, x + fed), q, k, v)


class ElasticEncoder(Transformer):
    """Token ids `(rows, length)` in, the last layer's stream and attention out.

    `mask` `(rows, length)` is true at real tokens; every row must have one.
    """

    def __init__(self, shape: ElasticShape):
        super().__init__(shape)
        self.embedding = Embedding(shape)
        self.blocks = nn.ModuleList(ElasticEncoderBlock(shape) for _ in range(shape.layers))
        self.pooler = nn.Linear(shape.width, shape.width)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, subnet: Subnet | None = None) -> LayerOutput:
        chosen = subnet or self.shape.whole
        keys = None if mask is None else mask[:, None, None, :]
        seen = LayerOutput(self.embedding(tokens, chosen.width), *[torch.empty(0)] * 3)
        for place in chosen.layers:
            seen = self.blocks[place](seen.hidden, keys, chosen)
        return seen

    def pool(self, hidden: Tensor) -> Tensor:
        """Return the features of the first token for a classifier: `(rows, width)`."""
        return torch.tanh(linear(self.pooler, hidden[:, 0], hidden.shape[-1]))
