"""What makes an embedding of a text: a decoder without its causal mask, or an encoder of transformers.

Texts are rows of token ids, `(rows, length)`; -1 stands where a text has ended. An embedding is the mean of the
last states over the tokens that are there.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.decoder import Decoder, initialise
from shoal.trainables.embedder_settings import EmbedderSettings
from shoal.trainables.pretrained.folder import judging_model
from shoal.trainables.searched_numbers import FloatOrTensor
from shoal.trainables.settings import DecoderShape

HEADS = 4  # attention heads of an encoder that begins anew


class TextTower(nn.Module):
    """Token ids `(rows, length)` in, embeddings `(rows, width)` out; they are not of length 1 yet."""

    def __init__(self, settings: EmbedderSettings, vocabulary: int, length: int):
        super().__init__()
        width = settings.hidden
        heads = {"layers": settings.layers, "heads": HEADS, "expansion": 2.0}
        self.encoder = Decoder(DecoderShape(vocabulary, length, width=width, **heads))  # type: ignore[arg-type]
        # torch's global random numbers are seeded for a member's weights
        initialise(self.encoder, torch.Generator().manual_seed(int(torch.randint(2**31, ()).item())))
        self.last: nn.Module = nn.Linear(width, settings.width, bias=False)

    def forward(self, tokens: Tensor, rate: FloatOrTensor, drop: FloatOrTensor) -> Tensor:
        there = kept_tokens(tokens, drop, self.training)
        found: Tensor = self.last(mean_state(states_both_ways(self.encoder, tokens, there, rate), there))
        return found


class ExportedTower(TextTower):
    """A text tower whose encoder is an exported decoder."""

    def __init__(self, settings: EmbedderSettings, length: int, shape: DecoderShape, weights: Any):
        nn.Module.__init__(self)
        self.encoder = Decoder(replace(shape, sequence_length=length))
        self.encoder.load_state_dict({name: torch.from_numpy(each.copy()) for name, each in weights.items()})
        self.last = nn.Linear(shape.width, settings.width, bias=False)
        if shape.width == settings.width:
            nn.init.eye_(self.last.weight)


class FolderTower(nn.Module):
    """An encoder of transformers, from its folder; an embedding is as wide as its states."""

    def __init__(self, folder: str):
        super().__init__()
        self.encoder = open_encoder(folder)

    def forward(self, tokens: Tensor, rate: FloatOrTensor, drop: FloatOrTensor) -> Tensor:
        there = kept_tokens(tokens, drop, self.training)
        # an empty text looks at its first place, or its attention could be NaN
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0
        read = there | (first & ~there.any(dim=1, keepdim=True))
        states = self.encoder(input_ids=tokens.clamp(min=0), attention_mask=read.long()).last_hidden_state
        return mean_state(states, there)


def kept_tokens(tokens: Tensor, drop: FloatOrTensor, training: bool) -> Tensor:
    """Return which tokens are read, `(rows, length)`: those that are there; in training a share is left out.

    A text's first token always stays.
    """
    there = tokens >= 0
    if not training or (not isinstance(drop, Tensor) and not drop):
        return there
    first = torch.arange(tokens.shape[1], device=tokens.device) == 0
    return there & (first | (torch.rand_like(tokens, dtype=torch.float32) >= drop))


def states_both_ways(decoder: Decoder, tokens: Tensor, there: Tensor, rate: FloatOrTensor) -> Tensor:
    """Return a decoder's last states where each token looks at all others: `(rows, length, width)`."""
    length = tokens.shape[1]
    cosine, sine = decoder.cosine[:length], decoder.sine[:length]
    # an empty text looks at its first place, or its attention would be NaN
    first = torch.arange(length, device=tokens.device) == 0
    seen = (there | first)[:, None, None, :].expand(-1, 1, length, -1)
    x: Tensor = decoder.embedding(tokens.clamp(min=0))
    found: Tensor = decoder.norm(decoder.through(x, cosine, sine, rate, seen))
    return found


def mean_state(states: Tensor, there: Tensor) -> Tensor:
    weights = there.to(states.dtype)[..., None]
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def open_encoder(folder: str) -> nn.Module:
    """Return an encoder of transformers in float32, to be trained; raises ValueError where it lacks weights."""
    opened = judging_model(folder, "AutoModel", "cpu").train().requires_grad_(True)
    # the pooler makes no part of the states: it would never train
    if getattr(opened, "pooler", None) is not None:
        opened.pooler = None  # type: ignore[assignment]
    return opened
