"""Steps of a classifier beside one pass: rows and styles that move uphill, and steps that are taken back."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.objectives.interface import NamedLoss

KINDS_OF_STYLE = 3  # a row keeps its style, gets the learnt noise, or noise as wide as the batch's spread


class Style(nn.Module):
    """Noise on the mean and deviation of each channel of a feature map `(rows, channels, height, width)`.

    It does nothing unless `open` was called; the widths are learnt by `ascend`.
    """

    means: Tensor
    sizes: Tensor
    begun: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("means", torch.zeros(channels))
        self.register_buffer("sizes", torch.zeros(channels))
        self.register_buffer("begun", torch.zeros(()))
        self.strength = 0.0
        self.drawn: tuple[Tensor, Tensor, Tensor] | None = None
        self.tried: tuple[Tensor, Tensor] | None = None  # widths whose gradient is wanted

    def open(self, strength: float) -> None:
        """Draw other noise at the next pass, of this strength."""
        self.strength, self.drawn, self.tried = strength, None, None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.strength:
            return x
        mean = x.mean(dim=(2, 3), keepdim=True)
        size = (x.var(dim=(2, 3), keepdim=True, unbiased=False) + 1e-6).sqrt()
        spreads = [each.detach()[..., 0, 0].std(dim=0, unbiased=False) for each in (mean, size)]
        if self.drawn is None:
            coin = torch.randint(KINDS_OF_STYLE, (len(x), 1, 1, 1), device=x.device)
            self.drawn = torch.randn_like(mean), torch.randn_like(size), coin
            if not self.begun:
                self.means.copy_(spreads[0])
                self.sizes.copy_(spreads[1])
                self.begun.fill_(1.0)
        learnt = self.tried or (self.means, self.sizes)
        noises, coin = self.drawn[:2], self.drawn[2]
        moves = [
            self.strength * noise * torch.where(coin == 1, own[:, None, None], spread[:, None, None])
            for noise, own, spread in zip(noises, learnt, spreads, strict=True)
        ]
        changed = (x - mean) / size * (size + moves[1]) + mean + moves[0]
        return torch.where(coin == 0, x, changed)


def ascend(
    network: nn.Module, mean_loss: Callable[[], Tensor], strength: float, rate: float, steps: int
) -> None:
    """Draw a step's noise, and move the widths of all styles along the loss's gradient; none falls below 0."""
    styles = [part for part in network.modules() if isinstance(part, Style)]
    for style in styles:
        style.open(strength)
    with torch.no_grad():
        mean_loss()
    for _ in range(steps if strength else 0):
        for style in styles:
            style.tried = tuple(each.clone().requires_grad_() for each in (style.means, style.sizes))  # type: ignore[assignment]
        leaves = [leaf for style in styles for leaf in style.tried or ()]
        slopes = iter(torch.autograd.grad(mean_loss(), leaves))
        with torch.no_grad():
            for style in styles:
                for width in (style.means, style.sizes):
                    width.add_(rate * next(slopes)).clamp_(min=0.0)
                style.tried = None


def worst(
    term: NamedLoss, network: Any, x: Tensor, batch: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """Return prepared rows moved by an objective's rule, and their squared distances `(rows,)`."""
    network.eval()
    with torch.enable_grad():
        found: Tensor = term.moved(x, lambda moved: network.heads_on(moved, numbers), batch, numbers)
    network.train()
    return found, (found - x).square().flatten(start_dim=1).sum(dim=1)


def look_ahead(member: Any, term: Any, batch: Any) -> None:
    """Take steps on a batch that are taken back, and let the teacher average over them and over the start."""
    network, optimiser = member.module, member.optimiser
    teaching = term.teaching(member.trained, member.losses.own("future_teacher", member.numbers))
    own = {name: value for name, value in network.state_dict(keep_vars=True).items() if "teacher." not in name}
    before = {name: value.detach().clone() for name, value in own.items()}
    slots, trained = deepcopy(optimiser.state_dict()), member.trained
    for _ in range(term.ahead):
        average(network, teaching)
        optimiser.zero_grad(set_to_none=True)
        member.one_backward(batch)
        member.descend()
    average(network, teaching)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(before[name])
    optimiser.load_state_dict(slots)
    member.trained = trained
    optimiser.zero_grad(set_to_none=True)


def average(network: Any, share: float) -> None:
    """Move the teacher's weights to the student's, of its own weights leaving a share."""
    with torch.no_grad():
        for name, part in network.teacher.items():
            theirs = getattr(network, name).state_dict()
            for key, value in part.state_dict().items():
                if value.is_floating_point():
                    value.mul_(share).add_(theirs[key], alpha=1 - share)
                else:  # a count of steps
                    value.copy_(theirs[key])
