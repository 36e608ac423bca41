"""Heads that look facts up, and what a model loses without them (AttentionInfluence: Hua et al., 2025).

A head looks up if, where the model writes a value that stands earlier in the row, it attends most to the very
token that comes next. Such heads are then made to attend to all visible tokens alike.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shoal.trainables.decoder import Decoder
from shoal.trainables.scoring import logits_of

ATTENTION_NAME = "shoal_heads"  # under this name transformers calls our attention
Head = tuple[int, int]  # layer, head
# (layer, queries, keys, values, output), all `(rows, heads, length, width)` -> output
Mix = Callable[[int, Tensor, Tensor, Tensor, Tensor], Tensor]


class Probe(NamedTuple):
    """A row that asks for a value which stands earlier in it, and has it as its last tokens."""

    tokens: NDArray[np.int64]  # (length,)
    value: slice  # where the value stands
    answer: slice  # where it stands again


def retrieval_scores(model: nn.Module, probes: Sequence[Probe]) -> NDArray[np.float64]:
    """Return what share of a value's tokens each head copies, the mean over probes: `(layers, heads)`."""
    found: dict[int, list[NDArray[np.float64]]] = {}
    device = next(model.parameters()).device
    for probe in probes:
        steps = slice(probe.answer.start - 1, probe.answer.stop - 1)

        def note(layer: int, q: Tensor, k: Tensor, v: Tensor, output: Tensor, steps: slice = steps) -> Tensor:
            places = most_attended(q, k, steps)[0].cpu().numpy()
            found.setdefault(layer, []).append(copied_shares(probe, places))  # noqa: B023
            return output

        with torch.inference_mode(), heads_watched(model, note):
            logits_of(model, torch.from_numpy(probe.tokens)[None].to(device))
    return np.stack([np.mean(found[layer], axis=0) for layer in sorted(found)])


def most_attended(q: Tensor, k: Tensor, steps: slice) -> Tensor:
    """Return the place that each head attends to most at these steps, `(rows, heads, steps)`."""
    places = torch.arange(k.shape[2], device=k.device)
    scores = q[:, :, steps] @ k.transpose(2, 3)
    hidden = places[None, :] > places[steps, None]
    return scores.masked_fill(hidden, -torch.inf).argmax(dim=3)


def copied_shares(probe: Probe, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of a value's different tokens that each head copies; `places` are `(heads, steps)`."""
    wanted, tokens = probe.tokens[probe.answer], probe.tokens[places]
    copied = (tokens == wanted) & (places >= probe.value.start) & (places < probe.value.stop)
    different = len(set(wanted.tolist()))
    return np.array(
        [len(set(each[hits].tolist())) / different for each, hits in zip(tokens, copied, strict=True)]
    )


def best_heads(scores: NDArray[np.float64], share: float) -> list[Head]:
    """Return this share of all heads, those of the largest scores; one at least, the first of equal ones."""
    count = max(1, round(share * scores.size))
    order = np.argsort(-scores.ravel(), kind="stable")[:count]
    return sorted((int(each) // scores.shape[1], int(each) % scores.shape[1]) for each in order)


@contextmanager
def attending_to_all(model: nn.Module, heads: Sequence[Head]) -> Iterator[None]:
    """Let these heads attend alike to all tokens that they see: each token and those before it."""
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)

    def level(layer: int, q: Tensor, k: Tensor, v: Tensor, output: Tensor) -> Tensor:
        if layer not in by_layer:
            return output
        output = output.clone()
        output[:, by_layer[layer]] = running_mean(v[:, by_layer[layer]]).to(output.dtype)
        return output

    with heads_watched(model, level):
        yield


def running_mean(values: Tensor) -> Tensor:
    """Return at each place the mean of the values up to there, over the last axis but one."""
    counts = torch.arange(1, values.shape[-2] + 1, device=values.device)[:, None]
    return values.float().cumsum(dim=-2) / counts


@contextmanager
def heads_watched(model: nn.Module, mix: Mix) -> Iterator[None]:
    """Call `mix` at each attention of a model, in each layer; what it returns is what the heads give."""
    with (attention_of_decoder if isinstance(model, Decoder) else attention_of_transformers)(model, mix):
        yield


@contextmanager
def attention_of_decoder(model: nn.Module, mix: Mix) -> Iterator[None]:
    layers: list[Any] = [block.attention for block in model.blocks]  # type: ignore[union-attr]

    def mixed(layer: int, plain: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return mix(layer, q, k, v, plain(q, k, v))

    before = [vars(layer).get("mix") for layer in layers]
    for number, layer in enumerate(layers):
        layer.mix = partial(mixed, number, layer.mix)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            if own is None:
                del layer.mix  # the class's own is there again
            else:
                layer.mix = own


@contextmanager
def attention_of_transformers(model: Any, mix: Mix) -> Iterator[None]:
    """Register our attention with transformers; keys and values of grouped queries are repeated for each."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **more: Any
    ) -> tuple[Tensor, None]:
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **more)
        times = query.shape[1] // key.shape[1]
        keys, values = (each.repeat_interleave(times, dim=1) for each in (key, value))
        return mix(module.layer_idx, query, keys, values, output.transpose(1, 2)).transpose(1, 2), None

    AttentionInterface.register(ATTENTION_NAME, attend)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
