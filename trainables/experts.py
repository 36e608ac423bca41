"""Experts side by side in place of one feed-forward layer, behind a gate that cools from dense to sparse.

A gate that is divided by its temperature (Nie et al., 2021) cannot be told apart from one that is scaled with
it; with an activation in between it can (Nguyen et al., 2024). All experts are computed, hot or cold: the one
wide product of a stack and of a small decoder, which saves no time.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

GATE_ACTIVATIONS = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}  # a linear gate has none


class Gate(nn.Module):
    """The share of each expert at each place. It is no `nn.Linear`: masks and few bits leave it whole."""

    def __init__(self, width: int, experts: int, kind: str):
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.empty(experts, width))
        self.bias = nn.Parameter(torch.zeros(experts))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, temperature: Tensor) -> Tensor:
        """Return shares `(..., experts)` in float32: even where it is hot, one expert alone where cold."""
        found = functional.linear(x, self.weight)
        if self.kind in GATE_ACTIVATIONS:
            found = GATE_ACTIVATIONS[self.kind](found)
        return ((found + self.bias).float() / temperature).softmax(dim=-1)


def weighed(inner: Tensor, shares: Tensor) -> Tensor:
    """Return the inner numbers of all experts, `(..., experts * hidden)`, each times its expert's share."""
    by_expert = inner.unflatten(-1, (shares.shape[-1], -1)) * shares.to(inner.dtype)[..., None]
    return by_expert.flatten(start_dim=-2)


def largest(shares: Tensor, active: int) -> Tensor:
    """Return the shares of so many experts, the largest, as shares of their sum; 0: of all. Ties all stay."""
    if active in (0, shares.shape[-1]):
        return shares
    least = shares.topk(active, dim=-1).values[..., -1:]
    kept = torch.where(shares >= least, shares, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def unevenness(shares: Tensor, there: Tensor | None = None) -> Tensor:
    """Return how unevenly each row uses its experts, `(rows,)`: 0 evenly, experts - 1 only one, mean of layers.

    Shares are `(layers, rows, length, experts)`; places that are not `there`, `(rows, length)`, do not count.
    A row's is its own, whatever stands beside it: so a batch may be cut in parts and rows be weighed.
    """
    counts = torch.ones_like(shares[0, ..., 0]) if there is None else there.to(shares.dtype)
    total = counts.sum(dim=-1)
    means = (shares * counts[..., None]).sum(dim=-2) / total.clamp(min=1.0)[:, None]  # (layers, rows, experts)
    found = (shares.shape[-1] * means.square().sum(dim=-1) - 1).mean(dim=0)
    return torch.where(total > 0, found, 0.0)


def temperature_at(step: int, steps: int, start: float, end: float) -> float:
    """Return the temperature of a step counted from 0: its logarithm goes evenly from start to end."""
    done = min(step / max(steps - 1, 1), 1.0)
    return float(start ** (1 - done) * end**done)
