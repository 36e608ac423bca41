"""The cost of a sub-network: counted from its shape, by the paper's formula, or measured."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from shoal.trainables.distill.elastic import Transformer, extract
from shoal.trainables.distill.spaces import ElasticShape, Subnet


class Cost(NamedTuple):
    parameters: int
    macs: int  # multiply-and-add operations in one row's forward pass


def encoder_cost(shape: ElasticShape, length: int) -> Cost:
    """Return the cost of an `ElasticEncoder` for one row of tokens; its pooler reads only the first token."""
    width, inner, attention = shape.width, shape.inner, shape.heads * shape.head_width
    tables = (shape.vocabulary + shape.positions + shape.types) * width + 2 * width
    projections = 3 * (width * attention + attention) + attention * width + width
    feed = 2 * width * inner + inner + width
    layer = projections + feed + 4 * width
    parameters = tables + shape.layers * layer + width * width + width
    products = length * (4 * width * attention + 2 * width * inner) + 2 * length * length * attention
    return Cost(parameters, shape.layers * products + width * width)


def decoder_cost(shape: ElasticShape, length: int) -> Cost:
    """Return the cost of an `ElasticDecoder` for one row of tokens, with its logits.

    Masked attention scores count too, because they are computed.
    """
    width, inner, attention = shape.width, shape.inner, shape.heads * shape.head_width
    weights = 4 * width * attention + 3 * width * inner
    table = shape.vocabulary * width
    parameters = table * (1 if shape.tied else 2) + shape.layers * (weights + 2 * width) + width
    products = length * weights + 2 * length * length * attention
    return Cost(parameters, shape.layers * products + length * table)


def published_cost(subnet: Subnet, length: int = 128, heads: int = 12) -> Cost:
    """Return the cost by the formula of AutoDistil's tables (Xu et al., 2022), for BERT's vocabulary.

    `heads` are the teacher's. The formula takes width * heads / 12 for the attention's width, which is
    64 * heads in the network, so it is too low for narrow networks: compare it with published numbers only.
    """
    depth, width, inner = len(subnet.layers), subnet.width, subnet.inner
    attention = width * subnet.heads / heads
    layer = width * width + 3 * width * attention + 6 * width + 2 * inner * width + inner + 3 * width
    parameters = width * (30522 + 512 + 2 + 2) + depth * layer + width * width + 2 * width
    products = 3 * length * width * attention + 2 * length * length * attention + length * width * width
    macs = depth * (products + 2 * length * width * inner) + length * width * width + 2 * width
    return Cost(round(parameters), round(macs))


def latency(network: Transformer, subnet: Subnet, tokens: Tensor, repeats: int = 5) -> float:
    """Measure the median time in ms of a forward pass of the extracted sub-network, on its device."""
    alone = extract(network, subnet).eval()
    with torch.inference_mode():
        alone(tokens)  # the first pass is slower: it also loads kernels
        times = sorted(_milliseconds(lambda: alone(tokens), tokens.device) for _ in range(repeats))
    return times[len(times) // 2]


def _milliseconds(run: Callable[[], object], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    run()
    wait()
    return 1000 * (time.perf_counter() - began)
