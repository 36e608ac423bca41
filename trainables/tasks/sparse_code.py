"""Vectors as sums of few directions, where biases keep neurons at set frequencies (Chen et al., 2025).

No term of the loss asks for few neurons. A neuron that is active more often than its group should be has its
bias lowered, and one that is never active has it raised (group bias adaptation).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.class_networks import Memory, memory_of, move_memory, scaled
from shoal.trainables.network import Network
from shoal.trainables.objectives.arithmetic import unit
from shoal.trainables.searched_numbers import FloatOrTensor

DEAD_BELOW = 1e-6  # a neuron of a smaller frequency is taken for dead
LOWEST_BIAS = -1.0  # no bias is lower


class SparseCode(Network):
    """A tied dictionary of a column `x`. The score is the explained variance by `active` neurons a row."""

    takes = frozenset({"columns"})
    by_row = True
    searched = frozenset({"top", "bottom", "step_size"})
    features: int  # numbers of `x`
    x: str = "x"  # the column
    neurons: int = 256
    groups: int = 10  # groups of neurons, each with a frequency of its own
    active: int = 8  # largest neurons of a row that count in the score, whatever the frequencies are
    every: int = 20  # steps between two adaptations
    top: float = 0.5  # share of the rows at which the first group is active
    bottom: float = 1e-3  # and the last one; between them lie the others, in equal ratios
    step_size: float = 0.01  # share of a neuron's peak by which its bias moves

    def build(self) -> nn.Module:
        first = {name: torch.zeros(self.neurons) for name in ("bias", "count", "peak")}
        first |= {"rows": torch.zeros(()), "steps": torch.zeros(())}
        return nn.ModuleDict({"code": Dictionary(self.features, self.neurons), "memory": Memory(first)})

    def group_of(self) -> Tensor:
        """Return the group of each neuron, `(neurons,)`."""
        return torch.arange(self.neurons) * self.groups // self.neurons

    def frequencies(self, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        """Return the frequency at which each neuron should be active, `(neurons,)`."""
        place = self.group_of().to(self.device) / max(self.groups - 1, 1)
        top, bottom = (torch.as_tensor(numbers[name]).log() for name in ("top", "bottom"))
        found: Tensor = (top + place * (bottom - top)).exp()
        return found

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        network, x = self.parts_of(module), unit(scaled(batch[self.x]).flatten(start_dim=1))
        held = memory_of(module)
        active = network.active(x, held["bias"])
        if module.training:
            self.adapt(module, held, active.detach(), numbers)
        return 0.5 * (network.rebuilt(active) - x).square().sum(dim=-1)

    def parts_of(self, module: Any) -> "Dictionary":
        found: Dictionary = module["code"]
        return found

    def adapt(
        self,
        module: nn.Module,
        held: Mapping[str, Tensor],
        active: Tensor,
        numbers: Mapping[str, FloatOrTensor],
    ) -> None:
        """Count which neurons were active, and move the biases when it is time."""
        count = held["count"] + (active > 0).to(active.dtype).sum(dim=0)
        peak = torch.maximum(held["peak"], active.amax(dim=0))
        rows, steps = held["rows"] + len(active), held["steps"] + 1
        due = steps.remainder(self.every) == 0
        bias = self.moved(held["bias"], count / rows, peak, numbers)
        nothing = torch.zeros_like(count)
        move_memory(
            module,
            {
                "bias": torch.where(due, bias, held["bias"]),
                "count": torch.where(due, nothing, count),
                "peak": torch.where(due, nothing, peak),
                "rows": torch.where(due, torch.zeros_like(rows), rows),
                "steps": steps,
            },
        )

    def moved(
        self, bias: Tensor, frequency: Tensor, peak: Tensor, numbers: Mapping[str, FloatOrTensor]
    ) -> Tensor:
        """Return the biases after an adaptation; all are `(neurons,)`."""
        step, group = numbers["step_size"], self.group_of().to(bias.device)
        member = torch.nn.functional.one_hot(group, self.groups).to(peak.dtype)  # (neurons, groups)
        there = (peak > 0).to(peak.dtype)
        mean = (member.T @ peak) / (member.T @ there).clamp(min=1.0)
        lower = (bias - step * peak).clamp(min=LOWEST_BIAS)
        higher = (bias + step * mean[group]).clamp(max=0.0)
        found = torch.where(frequency > self.frequencies(numbers), lower, bias)
        return torch.where(frequency < DEAD_BELOW, higher, found)

    def score(self, module: nn.Module, rows: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean explained variance of the target groups, and each group's unexplained share."""
        unexplained = {group: self.unexplained(module, each) for group, each in rows.items()}
        chosen = list(rows if self.targets is None else self.targets)
        return 1 - torch.stack([unexplained[group] for group in chosen]).mean(), unexplained

    def unexplained(self, module: nn.Module, rows: Any) -> Tensor:
        network, x = self.parts_of(module), unit(scaled(rows[self.x]).flatten(start_dim=1))
        active = network.active(x, memory_of(module)["bias"])
        least = active.topk(min(self.active, self.neurons), dim=-1).values[:, -1:]
        rest = network.rebuilt(torch.where(active >= least, active, torch.zeros_like(active))) - x
        return (rest.square().sum() / (x - x.mean(dim=0)).square().sum()).double()

    def measures(self, module: nn.Module, rows: Any) -> dict[str, Tensor]:
        """Return how many neurons of a row are active, and the share of those that never are."""
        x = unit(scaled(rows[self.x]).flatten(start_dim=1))
        active = self.parts_of(module).active(x, memory_of(module)["bias"]) > 0
        dead = 1 - active.any(dim=0).double().mean()
        return {"active": active.double().sum(dim=-1), "dead": dead.expand(len(x))}


class Dictionary(nn.Module):
    """Directions of length 1, a scale for each neuron, and a centre."""

    def __init__(self, features: int, neurons: int):
        super().__init__()
        self.directions = nn.Parameter(torch.randn(neurons, features))
        self.scales = nn.Parameter(torch.ones(neurons))
        self.centre = nn.Parameter(torch.zeros(features))

    def active(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return how active each neuron is, `(rows, neurons)`; the bias has no gradient."""
        # with a gradient here the centre runs away from the rows, and lifts every neuron above its bias
        return ((x - self.centre.detach()) @ unit(self.directions).T + bias.detach()).relu()

    def rebuilt(self, active: Tensor) -> Tensor:
        return (active * self.scales) @ unit(self.directions) + self.centre
