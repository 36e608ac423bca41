"""What a sub-network costs: counted from its shapes, by the paper's formula, and measured."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.distill.elastic import Transformer, extract
from trainables.distill.spaces import ElasticShape, Subnet


class Cost(NamedTuple):
    parameters: int
    macs: int  # multiplications and additions of one row's forward pass


def encoder_cost(shape: ElasticShape, length: int) -> Cost:
    """Count what an `ElasticEncoder` of this shape executes; its pooler reads the first token alone."""
    width, inner, attention = shape.width, shape.inner, shape.heads * shape.head_width
    tables = (shape.vocabulary + shape.positions + shape.types) * width + 2 * width
    projections = 3 * (width * attention + attention) + attention * width + width
    feed = 2 * width * inner + inner + width
    layer = projections + feed + 4 * width
    parameters = tables + shape.layers * layer + width * width + width
    products = length * (4 * width * attention + 2 * width * inner) + 2 * length * length * attention
    return Cost(parameters, shape.layers * products + width * width)


def decoder_cost(shape: ElasticShape, length: int) -> Cost:
    """Count what an `ElasticDecoder` of this shape executes, its logits with it; masked scores are computed too."""
    width, inner, attention = shape.width, shape.inner, shape.heads * shape.head_width
    weights = 4 * width * attention + 3 * width * inner
    table = shape.vocabulary * width
    parameters = table * (1 if shape.tied else 2) + shape.layers * (weights + 2 * width) + width
    products = length * weights + 2 * length * length * attention
    return Cost(parameters, shape.layers * products + length * table)


def published_cost(subnet: Subnet, length: int = 128, heads: int = 12) -> Cost:
    """Return the cost as AutoDistil's tables have it, for BERT's vocabulary and so many heads of the teacher.

    It takes the attention's width for width * heads / 12 where the network has 64 * heads, so it is too
    low for narrow networks: for comparison with the published numbers only.
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
        alone(tokens)  # the first pass also loads and plans
        times = sorted(_milliseconds(lambda: alone(tokens), tokens.device) for _ in range(repeats))
    return times[len(times) // 2]


def _milliseconds(run: Callable[[], object], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    run()
    wait()
    return 1000 * (time.perf_counter() - began)
