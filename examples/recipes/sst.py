"""Sparse spectral training (Zhao et al., 2024): W = U diag(s) V', and only a few columns train at a time.

All of s trains. Slots of other columns are 0, and stored all the same: this saves no memory yet.
"""

import torch
from torch import nn

from shoal.trainables.network import Network


class SpectralLinear(nn.Module):
    def __init__(self, weight):
        super().__init__()
        u, s, v = torch.linalg.svd(weight.detach(), full_matrices=False)
        self.u, self.s, self.v = map(nn.Parameter, (u.contiguous(), s, v.mT.contiguous()))
        self.register_buffer("drawn", torch.zeros(len(s)))  # 1 for the columns that train

    def forward(self, x):
        return x @ self.v * self.s @ self.u.mT

    @torch.no_grad()
    def draw(self, rank, anew):
        if anew:
            found = torch.linalg.svd((self.u * self.s) @ self.v.mT, full_matrices=False)
            self.u.copy_(found[0]), self.s.copy_(found[1]), self.v.copy_(found[2].mT)
        chance = 1 / len(self.s) + self.s / self.s.sum().clamp(min=1e-8)
        self.drawn.zero_()[chance.multinomial(min(rank, len(self.s)))] = 1.0


class Spectral(Network):
    own_step, searched, priced = True, {"rank"}, {"rank"}
    rank: int = 2  # columns that train
    iteration: int = 20  # steps on the same columns
    turns: int = 4  # iterations until W is decomposed anew

    def layers(self):
        return [part for part in self.module.modules() if isinstance(part, SpectralLinear)]

    def costs(self):
        return {"rank": self.numbers["rank"] / max(len(part.s) for part in self.layers())}

    def set_rates(self):
        super().set_rates()
        self.optimiser.param_groups[0]["weight_decay"] = 0.0  # columns have a length of 1
        for part in self.layers() if self.trained % self.iteration == 0 else ():
            part.draw(int(self.numbers["rank"]), self.trained % (self.iteration * self.turns) == 0)
            self.optimiser.state.pop(part.u, None), self.optimiser.state.pop(part.v, None)

    @torch.no_grad()
    def descend(self):
        for part in self.layers():  # a direction learns alike whatever its size, and others not at all
            for each in (part.u, part.v):
                each.grad.mul_(part.drawn / part.s.clamp(min=1e-6))
        super().descend()
        for part in self.layers():
            part.s.clamp_(min=0)
            for each in (part.u, part.v):
                each.copy_(torch.where(part.drawn > 0, each / each.norm(dim=0), each))
