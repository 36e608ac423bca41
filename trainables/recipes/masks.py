"""Layers of which only a share of the weights is there (random pruning; Liu et al., 2022), nested by density.

Each weight has a place in a random order of its layer, drawn once, and the first `mask_count` are there. So a
denser member has all weights of a sparser one with the same order. A copy brings its donor's order along, since
both buffers are in the state. Weights and slots outside are 0, and stay 0, since their gradients are.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.recipes.densities import COUNT, ORDER, WeightSizes, kept_counts
from shoal.trainables.recipes.layers import RecipeLinear, ThinConv1d, ThinConv2d
from shoal.trainables.span import local

Masked = Mapping[str, Any]  # name -> layer with a mask
THIN: dict[type, type] = {nn.Linear: RecipeLinear, nn.Conv1d: ThinConv1d, nn.Conv2d: ThinConv2d}


def thin_out(module: nn.Module, seed: int) -> dict[str, Any]:
    """Give each layer that can be thinned out a mask with all weights in it; return the layers by name.

    Embeddings and the heads that give a model's output are left whole. Raises ValueError if no layer is left.
    """
    spared = spared_weights(module)
    found = {
        name: part
        for name, part in module.named_modules()
        if type(part) in THIN and part.weight.requires_grad and part.weight not in spared
    }
    if not found:
        raise ValueError("density must be 1 for a network without linear layers or convolutions.")
    for name, layer in found.items():
        layer.__class__ = THIN[type(layer)]
        layer.register_buffer(ORDER, drawn_order(layer.weight, seed, name))
        layer.register_buffer(
            COUNT, torch.tensor(layer.weight.numel(), dtype=torch.int32, device=layer.weight.device)
        )
    return found


def spared_weights(module: nn.Module) -> set[Tensor]:
    """Return the weights of embeddings, tied ones included, and of the layer that a model calls its output."""
    found = {part.weight for part in module.modules() if isinstance(part, nn.Embedding)}
    named = getattr(module, "get_output_embeddings", lambda: None)()
    return found | ({named.weight} if named is not None else set())


def drawn_order(weight: Tensor, seed: int, name: str) -> Tensor:
    """Return the place of each weight in a random order that depends on the seed and the layer's name alone."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest))
    places = torch.randperm(weight.numel(), generator=generator).to(torch.int32)
    return places.view(weight.shape).to(weight.device)


def sizes_of(layers: Masked) -> dict[str, WeightSizes]:
    """Return the sizes of the layers' weights; of matrices that are stored as one, those of each."""
    found: dict[str, WeightSizes] = {}
    for name, layer in layers.items():
        outputs, *rest = layer.weight.shape
        found[name] = [outputs // getattr(layer, "fused", 1), *rest]
    return found


def counts_of(layers: Masked, density: float, rule: str) -> dict[str, int]:
    """Return how many weights of each layer are there at a density."""
    parts = {name: getattr(layer, "fused", 1) for name, layer in layers.items()}
    sizes = {
        (f"{name}/{part}" if parts[name] > 1 else name): size
        for name, size in sizes_of(layers).items()
        for part in range(parts[name])
    }
    found = kept_counts(sizes, density, rule)
    return {
        name: sum(found[f"{name}/{part}"] for part in range(parts[name])) if parts[name] > 1 else found[name]
        for name in layers
    }


def fit_masks(layers: Masked, counts: Mapping[str, int], slots: Mapping[Any, Mapping[str, Tensor]]) -> None:
    """Let so many weights of each layer be there, in place: the others, and their slots, become 0.

    A weight that comes in has been 0 so far, so it changes nothing until it has trained.
    """
    with torch.no_grad():
        for name, layer in layers.items():
            layer.mask_count.fill_(counts[name])
            gone = part_of_share(layer.mask_order, layer.weight) >= counts[name]
            local(layer.weight).masked_fill_(gone, 0.0)
            for slot in slots.get(layer.weight, {}).values():
                if slot.shape == layer.weight.shape:
                    local(slot).masked_fill_(gone, 0.0)


def part_of_share(order: Tensor, weight: Tensor) -> Tensor:
    """Return the part of an order that belongs to this process's shard of a weight: rows in even chunks."""
    share = local(weight)
    if share is weight:
        return order
    each = -(-weight.shape[0] // weight.device_mesh.size())  # type: ignore[attr-defined]
    first = each * weight.device_mesh.get_local_rank()  # type: ignore[attr-defined]
    return order[first : first + share.shape[0]]


def scale_up(layers: Masked, counts: Mapping[str, int]) -> None:
    """Scale drawn weights so that sums over fewer inputs keep their variance: by the root of 1 / density."""
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight.mul_((layer.weight.numel() / max(counts[name], 1)) ** 0.5)
