"""Adapters of low rank (LoRA; Hu et al., 2021), of one member or of all members of a stack at once.

A searched rank uses the first ranks of those that are stored. The other rows of `down` and columns of `up` are
0, so that their gradients are 0 too, and an optimiser leaves them at 0. All members' tensors have one shape.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoal.trainables.pretrained.settings import LowRank
from shoal.trainables.searched_numbers import FloatOrTensor

Seats = tuple[Tensor, Tensor]  # `down` (members, rank, inputs) and `up` (members, outputs, rank) of a stack


class LowRankLinear(nn.Module):
    """A frozen linear layer and an adapter beside it.

    In a stack the first axis of the input holds the rows of all members, member after member.
    """

    began_down: Tensor | None  # (rank, inputs), the first `down` of an adapter that began with a product
    began_up: Tensor | None  # (outputs, rank)

    def __init__(self, base: nn.Linear, settings: LowRank):
        super().__init__()
        self.register_buffer("began_down", None)
        self.register_buffer("began_up", None)
        self.base, self.scale = base, settings.scale
        self._rate: FloatOrTensor = 0.0
        self._seats: Seats | None = None
        place = base.weight.device
        self.down = nn.Parameter(torch.empty(settings.rank, base.in_features, device=place))
        self.up = nn.Parameter(torch.zeros(base.out_features, settings.rank, device=place))
        draw_down(self.down)

    def begin_with(self, down: Tensor, up: Tensor) -> None:
        """Begin with a product that is taken off again by a frozen copy: what the layer computes stays."""
        with torch.no_grad():
            self.down.copy_(down)
            self.up.copy_(up)
        self.register_buffer("began_down", self.down.detach().clone())
        self.register_buffer("began_up", self.up.detach().clone())

    def drop(self, rate: FloatOrTensor) -> None:
        """Take the dropout of the passes to come: one number, or each member's, `(members,)`."""
        self._rate = rate

    def seat(self, seats: Seats | None) -> None:
        """Compute with the weights of all members of a stack from now on, or, with None, with its own."""
        self._seats = seats

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        down, up = self._seats or (self.down[None], self.up[None])
        rows = left_out(x.reshape(len(down), -1, x.shape[-1]), self._rate, self.training)
        low = torch.bmm(rows, down.mT)
        added = torch.bmm(low, up.mT).view(y.shape)
        if self.began_down is not None and self.began_up is not None:
            # taken off before the sum, where both are alike: at first nothing is added at all
            added = added - functional.linear(functional.linear(x, self.began_down), self.began_up)
        return y + self.scale * added


def left_out(x: Tensor, rate: FloatOrTensor, training: bool) -> Tensor:
    """Return rows `(members, rows, width)` after a dropout at one rate, or at each member's, `(members,)`."""
    if not isinstance(rate, Tensor):
        return functional.dropout(x, rate, training)
    if not training:
        return x
    each = rate.view(-1, 1, 1).to(x.dtype)
    return x * (torch.rand_like(x) >= each) / (1 - each)


def draw_down(down: Tensor, generator: torch.Generator | None = None) -> None:
    """Draw rows of `down` in place, as peft does."""
    bound = 1 / math.sqrt(down.shape[1])
    with torch.no_grad():
        down.copy_(torch.empty(down.shape).uniform_(-bound, bound, generator=generator))


def add_adapters(module: nn.Module, settings: LowRank) -> None:
    """Put an adapter beside each linear layer that `targets` names, in place.

    Raises ValueError if a name has no layer.
    """
    found = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    for target in settings.targets:
        if not any(is_target(name, target) for name in found):
            raise ValueError(f"targets must name linear layers, but none is called {target}.")
    for name, part in found.items():
        if any(is_target(name, target) for target in settings.targets):
            above, _, last = name.rpartition(".")
            setattr(module.get_submodule(above), last, LowRankLinear(part, settings))


def linear_sizes(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the inputs and outputs of each linear layer by its name."""
    layers = ((name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear))
    return {name: (part.in_features, part.out_features) for name, part in layers}


def is_target(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def adapters(module: nn.Module) -> Iterator[tuple[str, LowRankLinear]]:
    """Yield each adapted layer by its name."""
    yield from ((name, part) for name, part in module.named_modules() if isinstance(part, LowRankLinear))


def ranks_in_use(layer: LowRankLinear) -> int:
    """Return how many rows of `down` are not 0."""
    return int((layer.down.detach().abs().amax(dim=1) > 0).sum())


def fit_rank(layer: LowRankLinear, rank: int, slots: dict[nn.Parameter, dict[str, Tensor]], seed: int) -> None:
    """Leave so many ranks in use, in place: what is cut off becomes 0, and what is new starts afresh.

    A new rank has a drawn row of `down` and a column of zeros of `up`, as at the first start, so it changes
    nothing until it has trained. `slots` are the optimiser's, by weight.
    """
    used = layer.down.detach().abs().amax(dim=1) > 0  # (stored ranks,)
    new = [place for place in range(rank) if not used[place]]
    with torch.no_grad():
        for weight, rows in ((layer.down, layer.down), (layer.up, layer.up.mT)):
            rows[rank:] = 0
            for slot in slots.get(weight, {}).values():
                if slot.shape == weight.shape:
                    (slot if rows is weight else slot.mT)[rank:] = 0
        for place in new:
            draw_down(layer.down[place : place + 1], torch.Generator().manual_seed(seed + place))
