"""Two operations that `vmap` runs slowly on a CPU are replaced while a stack trains."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def attention(device: torch.device) -> Iterator[None]:
    """Use plain attention on a CPU: its flash attention has no vmap rule, so members would run one by one."""
    with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
        yield


class Linear(nn.Linear):
    """A linear layer whose weight gradient leaves vmap in the weight's own memory layout, not transposed.

    Transposing the gradient would take as long as computing it. With few rows the output is smaller than the
    weight, so the output is transposed instead.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or len(x) >= self.in_features:
            return super().forward(x)
        y = torch.mm(self.weight, x.t()).t().contiguous()
        return y if self.bias is None else y + self.bias


@contextmanager
def linear_layers(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Turn the module's `nn.Linear` layers into `Linear` while it trains on a CPU, but no subclass of them."""
    layers = [part for part in module.modules() if type(part) is nn.Linear and device.type == "cpu"]
    try:
        for layer in layers:
            layer.__class__ = Linear
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Linear
