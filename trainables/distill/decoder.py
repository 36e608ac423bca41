"""A decoder like Llama (Touvron et al., 2023) that can run as any of its sub-networks.

It has norms before each part, rotary positions, a gated feed-forward part and no biases. Each head has its
own keys and values: if a teacher's heads share them, they are loaded as copies.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoal.trainables.decoder import rotary_angles, rotate
from shoal.trainables.distill.elastic import ACTIVATIONS, Transformer, attend, linear, root_norm, split_heads
from shoal.trainables.distill.encoder import LayerOutput
from shoal.trainables.distill.spaces import ElasticShape, Subnet


class ElasticDecoderBlock(nn.Module):
    def __init__(self, shape: ElasticShape):
        super().__init__()
        attention = shape.heads * shape.head_width
        self.activation = ACTIVATIONS[shape.activation]
        self.attention_norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.query = nn.Linear(shape.width, attention, bias=False)
        self.key = nn.Linear(shape.width, attention, bias=False)
        self.value = nn.Linear(shape.width, attention, bias=False)
        self.output = nn.Linear(attention, shape.width, bias=False)
        self.feed_norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.gate = nn.Linear(shape.width, shape.inner, bias=False)
        self.rise = nn.Linear(shape.width, shape.inner, bias=False)
        self.fall = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor, mask: Tensor, angles: tuple[Tensor, Tensor], subnet: Subnet) -> LayerOutput:
        normed = root_norm(self.attention_norm, x)
        q, k, v = (linear(part, normed, subnet.attention) for part in (self.query, self.key, self.value))
        heads = [split_heads(part, subnet.head_width) for part in (q, k, v)]
        turned = [rotate(part, *angles) for part in heads[:2]]
        mixed = attend([*turned, heads[2]], mask)
        x = x + linear(self.output, mixed.transpose(1, 2).flatten(2), subnet.width)
        normed = root_norm(self.feed_norm, x)
        risen = self.activation(linear(self.gate, normed, subnet.inner)) * linear(
            self.rise, normed, subnet.inner
        )
        return LayerOutput(x + linear(self.fall, risen, subnet.width), q, k, v)


class ElasticDecoder(Transformer):
    """Token ids `(rows, length)` in, the stream after the last norm and the last layer's attention out.

    Queries and keys are returned as they are before their rotation. `mask` is true at real tokens.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: ElasticShape):
        super().__init__(shape)
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(ElasticDecoderBlock(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, shape.epsilon)
        if not shape.tied:
            self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        cosine, sine = rotary_angles(shape.positions, shape.head_width, shape.base)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, subnet: Subnet | None = None) -> LayerOutput:
        chosen, length = subnet or self.shape.whole, tokens.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()[None, None]
        if mask is not None:
            # a padded token attends to itself: otherwise its softmax would have nothing to sum over
            own = torch.eye(length, dtype=torch.bool, device=tokens.device)
            allowed = allowed & (mask[:, None, None, :] | own)
        angles = self.cosine[:length], self.sine[:length]
        stream = functional.embedding(tokens, self.embedding.weight[:, : chosen.width])
        seen = LayerOutput(stream, *[torch.empty(0)] * 3)
        for place in chosen.layers:
            seen = self.blocks[place](seen.hidden, allowed, angles, chosen)
        return seen._replace(hidden=root_norm(self.norm, seen.hidden))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits `(rows, length, vocabulary)` of the stream that `forward` returns."""
        weight = self.embedding.weight if self.shape.tied else self.head.weight
        return functional.linear(hidden, weight[:, : hidden.shape[-1]])
