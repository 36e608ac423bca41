"""A sparse, wide inner layer at the cost of a dense one (Saxena et al., 2023; random masks: Liu et al., 2022).

`width / density` of the stored inner rows are there, and of their weights the share `density`: the products
stay those of a dense layer of `width`, on hardware that leaves zeros out. This machine computes them all,
so it saves nothing here. Masks are nested: a greater density of equal rows holds the weights of a smaller
one.
"""

import torch
from torch import nn

from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy


class Wide(nn.Module):
    def __init__(self, inputs, width, classes, least):
        super().__init__()
        self.width, stored = width, round(width / least)
        self.rise, self.fall = nn.Linear(inputs, stored), nn.Linear(stored, classes)
        self.register_buffer("rise_draw", torch.rand(stored, inputs))  # one draw for each weight, kept for good
        self.register_buffer("fall_draw", torch.rand(classes, stored))

    def masks(self, density):
        rows = (torch.arange(len(self.rise_draw)) < self.width / density).float()
        return rows[:, None] * (self.rise_draw < density), rows * (self.fall_draw < density), rows

    def forward(self, x, density):
        rise, fall, rows = self.masks(density)
        inner = nn.functional.linear(x, self.rise.weight * rise, self.rise.bias * rows).relu()
        return nn.functional.linear(inner, self.fall.weight * fall, self.fall.bias)


class SparseWide(Network):
    takes, by_row, searched = {"columns"}, True, {"share"}
    inputs: int
    classes: int
    width: int = 32
    least: float = 0.125  # the smallest share, for which rows are stored
    share: float = 0.5

    def build(self):
        return self.thin(Wide(self.inputs, self.width, self.classes, self.least), {})

    def adopt(self, hyperparameters):
        super().adopt(hyperparameters)
        if hasattr(self, "module"):
            self.thin(self.module, self.optimiser.state)

    def thin(self, module, slots):
        rise, fall, _ = module.masks(torch.tensor(self.numbers["share"]))
        for weight, mask in ((module.rise.weight, rise), (module.fall.weight, fall)):
            weight.data.mul_(mask)  # what comes back later comes back as 0
            for name, slot in slots.get(weight, {}).items():
                slot.mul_(mask) if name != "step" else None
        return module

    def loss(self, module, batch, numbers):
        return cross_entropy(module(batch["x"], numbers["share"]), batch["label"])
