"""Adapters that begin with what only rows to forget need (Cha et al., 2025: FILA).

A layer's weights become a product of low rank and a rest. Rows of the weights that matter to what is to be
forgotten, and not to what is kept, weigh more in it: by the ratio of their Fisher information. The base stays
as it is, since members share it: the first product is taken off again by a frozen copy beside each adapter.
"""

import hashlib
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from shoal.trainables.arrays import leaves_of, pieces, to_tensors
from shoal.trainables.pretrained.low_rank import adapters, is_target
from shoal.trainables.pretrained.rows import asked, mean_counted, seen
from shoal.trainables.pretrained.settings import LowRank

LEAST_KEPT = 1e-3  # share of its mean that is added to the Fisher information of what is kept
Products = dict[str, tuple[Tensor, Tensor]]  # layer -> down (rank, inputs) and up (outputs, rank)

# first products by base and settings: the members of a process compute them once
_known: "weakref.WeakKeyDictionary[nn.Module, dict[Any, Products]]" = weakref.WeakKeyDictionary()


def begin_apart(module: nn.Module, base: nn.Module, given: LowRank, rows: Mapping[str, Any]) -> None:
    """Let a module's adapters begin with the products of low rank; what it computes stays the same.

    `rows` are the training rows of those to `forget`, and of those to `retain`; `base` is what members share.
    """
    known = _known.setdefault(base, {})
    key = given, digest(rows)
    if key not in known:
        known[key] = first_products(base, given, rows)
    for name, layer in adapters(module):
        layer.begin_with(*known[key][name])


def digest(rows: Any) -> str:
    found = hashlib.blake2b(digest_size=16)
    for leaf in leaves_of(rows):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def first_products(base: nn.Module, given: LowRank, rows: Mapping[str, Any]) -> Products:
    layers = {
        name: part
        for name, part in base.named_modules()
        if isinstance(part, nn.Linear) and any(is_target(name, target) for target in given.targets)
    }
    forget, retain = (fisher(base, layers, rows[name]) for name in ("forget", "retain"))
    return {
        name: weighted_product(
            layer.weight.detach().float(), row_weights(forget[name], retain[name]), given.rank, given.scale
        )
        for name, layer in layers.items()
    }


def fisher(base: nn.Module, layers: Mapping[str, nn.Linear], rows: Any) -> dict[str, Tensor]:
    """Return the mean square over rows of each row's own gradient, `(outputs, inputs)` for each layer."""
    weights = [layer.weight for layer in layers.values()]
    device = weights[0].device
    found = {
        name: torch.zeros(weight.shape, device=device) for name, weight in zip(layers, weights, strict=True)
    }
    each = pieces(to_tensors(rows, device), 1)
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for row in each:
            for name, slope in zip(layers, torch.autograd.grad(row_loss(base, row), weights), strict=True):
                found[name] += slope.float().square() / len(each)
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    return found


def row_loss(base: nn.Module, row: Any) -> Tensor:
    read = seen(row)
    logits = base(**asked(read)).logits.float()
    flat = functional.cross_entropy(logits.flatten(0, 1), read.targets.flatten(), reduction="none")
    return mean_counted(flat.view(read.targets.shape), read.counted).sum()


def row_weights(forget: Tensor, retain: Tensor) -> Tensor:
    """Return the weight of each row of a matrix, `(outputs,)`, of Fisher information `(outputs, inputs)`.

    It is the root of the summed ratios. A number is added to what divides that goes with its size: values of
    1e-7 would vanish beside a fixed one.
    """
    ratio = forget / (retain + LEAST_KEPT * retain.mean()).clamp(min=torch.finfo(torch.float32).tiny)
    found = ratio.sum(dim=1).sqrt()
    return torch.ones_like(found) if not found.max() > 0 else found.clamp(min=1e-4 * float(found.max()))


def weighted_product(weight: Tensor, rows: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return `down` and `up` whose product, times `scale`, is nearest to a matrix `(outputs, inputs)`.

    Nearest is meant in the norm in which each row counts by its weight, `rows`, `(outputs,)`.
    """
    left, sizes, right = torch.linalg.svd(rows[:, None].double() * weight.double(), full_matrices=False)
    half = (sizes[:rank] / scale).sqrt()
    return (half[:, None] * right[:rank]).float(), (left[:, :rank] * half / rows[:, None].double()).float()
