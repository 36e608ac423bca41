"""A decoder-only transformer: pre-norm, rotary positions, tied embeddings."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from shoal.trainables.experts import Gate, largest, unevenness, weighed
from shoal.trainables.searched_numbers import FloatOrTensor, cross_entropy, dropout
from shoal.trainables.settings import TEMPERATURES, Cooling, DecoderShape


class Attention(nn.Module):
    def __init__(self, shape: DecoderShape):
        super().__init__()
        self.heads = shape.heads
        self.project = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.project.fused = 3  # type: ignore[assignment]  # matrices that are stored as one
        self.output = nn.Linear(shape.width, shape.width, bias=False)

    def forward(
        self, x: Tensor, cosine: Tensor, sine: Tensor, rate: FloatOrTensor, seen: Tensor | None = None
    ) -> Tensor:
        rows, length, width = x.shape
        # (rows, length, 3 * width) -> three of (rows, heads, length, width / heads)
        q, k, v = self.project(x).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # under vmap no cast is made for attention: all three must be of one type
        q, k = (rotate(each, cosine, sine).to(v.dtype) for each in (q, k))
        mixed = self.mix(q, k, v) if seen is None else self.mix(q, k, v, seen)
        mixed = self.output(mixed.transpose(1, 2).reshape(rows, length, width))
        return dropout(mixed, rate, self.training)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return what each head gives, `(rows, heads, length, width / heads)`, as are all three."""
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)


class DecoderBlock(nn.Module):
    def __init__(self, shape: DecoderShape):
        super().__init__()
        hidden = shape.experts * round(shape.expansion * shape.width)
        self.attention_norm = nn.RMSNorm(shape.width)
        self.attention = Attention(shape)
        self.feed_norm = nn.RMSNorm(shape.width)
        self.rise = nn.Linear(shape.width, hidden, bias=False)
        self.fall = nn.Linear(hidden, shape.width, bias=False)

    def forward(
        self, x: Tensor, cosine: Tensor, sine: Tensor, rate: FloatOrTensor, seen: Tensor | None = None
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cosine, sine, rate, seen)
        # squared ReLU (So et al., 2021) is as good as GELU here, and saves a tenth of a step on a CPU
        fed = self.fall(functional.relu(self.rise(self.feed_norm(x))).square())
        return x + dropout(fed, rate, self.training)


class ExpertBlock(DecoderBlock):
    """A block whose `rise` and `fall` are those of several experts, one after another."""

    def __init__(self, shape: DecoderShape):
        super().__init__(shape)
        self.active = shape.active_experts
        self.gate = Gate(shape.width, shape.experts, shape.gate)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        cosine: Tensor,
        sine: Tensor,
        rate: FloatOrTensor,
        seen: Tensor | None,
        temperature: Tensor,
        cooling: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the stream, and while the gate is `cooling` each expert's share `(rows, length, experts)`."""
        x = x + self.attention(self.attention_norm(x), cosine, sine, rate, seen)
        normed = self.feed_norm(x)
        shares = self.gate(normed, temperature)
        kept = shares if cooling else largest(shares, self.active)
        fed = self.fall(weighed(functional.relu(self.rise(normed)).square(), kept))
        x = x + dropout(fed, rate, self.training)
        return (x, shares) if cooling else x


class Decoder(nn.Module):
    """Token ids `(rows, length)` in, logits `(rows, length, vocabulary)` out.

    `segment`, `(rows, length)`, numbers the examples of a row: attention and positions stay within each. With
    `hidden`, `(rows, length)`, each place looks at all others, and a token where it is True has no vector.

    One with experts is judged at its gate's last temperature. While it is `cooling` it has the step's, and
    returns also how unevenly each row uses the experts, `(rows,)`.
    """

    cosine: Tensor
    sine: Tensor
    temperatures: Tensor  # (2,), only with experts: that of this step, and the last one

    def __init__(self, shape: DecoderShape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        block = ExpertBlock if shape.experts > 1 else DecoderBlock
        self.blocks = nn.ModuleList(block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width)
        cosine, sine = rotary_angles(shape.sequence_length, shape.width // shape.heads)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        if shape.experts > 1:
            self.register_buffer(TEMPERATURES, torch.tensor([Cooling.gate_start, Cooling.gate_end]))

    def forward(
        self,
        tokens: Tensor,
        dropout: FloatOrTensor = 0.0,
        segment: Tensor | None = None,
        hidden: Tensor | None = None,
        cooling: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        length = tokens.shape[1]
        cosine, sine, seen = self.cosine[:length], self.sine[:length], None
        if segment is not None:
            seen = seen_within(segment)
            places = seen.sum(dim=-1) - 1  # (rows, 1, length)
            cosine, sine = self.cosine[places], self.sine[places]
        x = self.embedding(tokens)
        if hidden is not None:
            x = x * ~hidden[..., None]
            seen = seen_both_ways(torch.zeros_like(tokens) if segment is None else segment)
        if not cooling:
            return self.logits_of(self.through(x, cosine, sine, dropout, seen))
        x, shares = self.through_cooling(x, cosine, sine, dropout, seen)
        return self.logits_of(x), unevenness(shares, None if segment is None else segment > 0)

    def through(
        self, x: Tensor, cosine: Tensor, sine: Tensor, rate: FloatOrTensor, seen: Tensor | None = None
    ) -> Tensor:
        """Return the stream after the last block, of what goes into the first one."""
        gated = (self.temperatures[1],) if self.shape.experts > 1 else ()
        for block in self.blocks:
            x = block(x, cosine, sine, rate, seen, *gated)
        return x

    def through_cooling(
        self, x: Tensor, cosine: Tensor, sine: Tensor, rate: FloatOrTensor, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the same at the step's temperature, and shares `(layers, rows, length, experts)`."""
        found = []
        for block in self.blocks:
            x, shares = block(x, cosine, sine, rate, seen, self.temperatures[0], True)
            found.append(shares)
        return x, torch.stack(found)

    def logits_of(self, x: Tensor) -> Tensor:
        """Return the logits of what the last block gives."""
        return functional.linear(self.norm(x), self.embedding.weight)


def seen_within(segment: Tensor) -> Tensor:
    """Return where each place may look, itself and before it in its example: `(rows, 1, length, length)`."""
    length = segment.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    return seen_both_ways(segment) & before


def seen_both_ways(segment: Tensor) -> Tensor:
    """Return where each place may look, all places of its example: `(rows, 1, length, length)`."""
    return segment[:, None, :, None] == segment[:, None, None, :]


def rotary_angles(length: int, width: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Return cosines and sines `(length, width / 2)` of the rotary embedding (Su et al., 2021)."""
    rates = base ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), rates)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cosine - right * sine, right * cosine + left * sine), dim=-1)


def trained_decoder(
    shape: DecoderShape, weights: Mapping[str, NDArray[np.floating]], length: int, device: str = "cpu"
) -> Decoder:
    """Return a decoder with trained weights, in evaluation mode, for rows of `length` tokens.

    Positions have no weights, so `length` may differ from the length that it was trained with.
    """
    model = Decoder(replace(shape, sequence_length=length))
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return model.to(torch.device(device)).eval()


def initialise(model: Decoder, generator: torch.Generator) -> None:
    """Draw normal weights; those that write to the residual stream are scaled down with depth."""
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0)
            continue
        residual = name.endswith(("output.weight", "fall.weight"))
        scale = 0.02 / (2 * model.shape.layers) ** 0.5 if residual else 0.02
        with torch.no_grad():
            weight.normal_(0.0, scale, generator=generator)


def token_losses(logits: Tensor, tokens: Tensor, label_smoothing: FloatOrTensor = 0.0) -> Tensor:
    """Return the mean next-token loss of each row, in nats: `(rows,)`."""
    return losses_by_token(logits, tokens, label_smoothing).mean(dim=1)


def losses_by_token(logits: Tensor, tokens: Tensor, label_smoothing: FloatOrTensor = 0.0) -> Tensor:
    """Return the loss of each token except the first of a row, in nats: `(rows, length - 1)`."""
    rows, length, vocabulary = logits.shape
    flat = cross_entropy(
        logits[:, :-1].reshape(-1, vocabulary).float(), tokens[:, 1:].reshape(-1), label_smoothing
    )
    return flat.view(rows, length - 1)
