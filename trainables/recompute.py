"""Layers that are computed again in the backward pass, in place of being kept (Chen et al., 2016).

torch.utils.checkpoint does it for a member alone. It knows nothing of vmap, so in a stack a function of our own
does it, which keeps a layer's inputs and weights, and vmaps the layer once more when its gradients are due.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils import _pytree as nests
from torch.utils.checkpoint import checkpoint

from shoal.trainables.accumulate import random_state, set_random_state

Layer = Callable[..., Any]  # tensors -> a tensor, or a tuple of tensors


@dataclass
class Circumstances:
    """Under which a layer was computed: it must be computed again under the same."""

    random: list[Tensor]
    autocast: torch.autocast  # a context


class Recomputing(nn.Module):
    """A base of the classes that `recomputed` makes."""

    _whole = False  # whether the layer computes as ever at the moment

    def forward(self, *arguments: Any, **named: Any) -> Any:
        if self._whole or not self.training or not torch.is_grad_enabled():
            return super().forward(*arguments, **named)
        leaves, outline = nests.tree_flatten((arguments, named))
        tensors = dict(self.named_parameters()) | dict(self.named_buffers())
        if not any(in_vmap(each) for each in (*leaves, *tensors.values())):
            return checkpoint(super().forward, *arguments, use_reentrant=False, **named)
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def layer(*given: Tensor) -> Any:
            filled = list(leaves)
            for place, tensor in zip(places, given, strict=False):
                filled[place] = tensor
            arguments, named = nests.tree_unflatten(filled, outline)
            held = dict(zip(tensors, given[len(places) :], strict=True))
            self._whole = True
            try:
                return functional_call(self, held, arguments, named)
            finally:
                self._whole = False

        given = [leaves[place] for place in places]
        return Again.apply(layer, circumstances(given), *given, *tensors.values())


def recompute_parts(module: nn.Module) -> int:
    """Let every part of the module's lists compute again in the backward pass, in place; return how many do.

    Its lists are each `nn.ModuleList`, and each `nn.Sequential` that is not within another list.
    """
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    within = {id(part) for each in lists for child in each for part in child.modules()}
    parts = [part for each in lists if id(each) not in within for part in each]
    parts = [part for part in parts if any(True for _ in part.parameters())]
    for part in parts:
        part.__class__ = recomputed(type(part))  # type: ignore[arg-type]
    return len(parts)


def in_vmap(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and torch._C._functorch.is_batchedtensor(leaf)


def circumstances(tensors: Sequence[Tensor]) -> Circumstances:
    kind = tensors[0].device.type
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    return Circumstances(random_state(), torch.autocast(kind, dtype, enabled, cache_enabled=False))


@cache
def recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a class of modules that computes as another, and again in the backward pass."""
    return kind if issubclass(kind, Recomputing) else type(kind.__name__, (Recomputing, kind), {})


class Again(torch.autograd.Function):
    """Calls a layer on tensors and keeps nothing but these: the backward pass calls it again."""

    @staticmethod
    def forward(layer: Layer, under: Circumstances, *tensors: Tensor) -> Any:
        with torch.no_grad():
            return layer(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.layer, ctx.under, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        now = random_state()
        set_random_state(ctx.under.random)
        wanted = ctx.needs_input_grad[2:]
        inputs = [
            each.detach().requires_grad_(want) for each, want in zip(ctx.saved_tensors, wanted, strict=True)
        ]
        with torch.enable_grad(), ctx.under.autocast:
            found = ctx.layer(*inputs)
        set_random_state(now)
        due = torch.autograd.grad(
            found, [each for each, want in zip(inputs, wanted, strict=True) if want], slopes, allow_unused=True
        )
        rest = iter(due)
        return None, None, *(next(rest) if want else None for want in wanted)

    @staticmethod
    def vmap(
        info: Any, axes: Sequence[int | None], layer: Layer, under: Circumstances, *tensors: Tensor
    ) -> Any:
        found = Again.apply(vmap(layer, in_dims=tuple(axes[2:]), randomness=info.randomness), under, *tensors)
        return found, nests.tree_map(lambda _: 0, found)
