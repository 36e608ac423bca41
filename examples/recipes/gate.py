"""Experts behind a gate that cools and so grows sparse (Nie et al., 2021), activated (Nguyen et al., 2024).

A linear gate divided by its temperature cannot be told apart from another one that is scaled with it, which
slows learning of either. With `tanh` in between it can.
"""

import torch
from torch import nn

from shoal.trainables.network import Network


class Gated(nn.Module):
    def __init__(self, inputs, experts, active):
        super().__init__()
        self.gate, self.active = nn.Linear(inputs, experts), active
        self.experts = nn.Linear(inputs, experts)

    def chances(self, x, temperature):
        """Return each expert's share `(rows, experts)`: even for a hot gate, one alone for a cold one."""
        found = nn.functional.linear(x, self.gate.weight)
        found = found.tanh() if self.active else found
        return ((found + self.gate.bias) / temperature).softmax(dim=-1)

    def forward(self, x, temperature):
        shares = self.chances(x, temperature)
        return (shares * self.experts(x)).sum(dim=-1), shares


class Experts(Network):
    takes, by_row, searched = {"columns"}, True, {"hot", "cold", "balance"}
    inputs: int
    experts: int = 2
    active: bool = True
    hot: float = 2.0  # the temperature of the first step
    cold: float = 0.3  # and of the last; rows are judged at it
    balance: float = 0.01  # weight of the loss that keeps every expert in use

    def build(self):
        module = Gated(self.inputs, self.experts, self.active)
        module.register_buffer("age", torch.tensor(0.0))  # steps it has trained; they travel with the weights
        return module

    def temperature(self, age, numbers):
        """Return the temperature after so many steps: its logarithm goes evenly from hot to cold."""
        hot, cold = (torch.as_tensor(numbers[name]).log() for name in ("hot", "cold"))
        done = (age / self.recipe.steps).clamp(max=1.0)
        return ((1 - done) * hot + done * cold).exp()

    def loss(self, module, batch, numbers):
        temperature = numbers["cold"]
        if module.training:
            temperature = self.temperature(module.age.clone(), numbers)
            module.age.add_(1 / self.recipe.accumulate)  # a stack, too, counts the steps of each member
        found, shares = module(batch["x"], temperature)
        uneven = len(module.gate.bias) * shares.mean(dim=0).square().sum() - 1
        return (found - batch["y"]).square() + (numbers["balance"] * uneven if module.training else 0.0)
