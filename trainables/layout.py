"""What vmap does badly on a CPU, done better while a stack trains."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def attention(device: torch.device) -> Iterator[None]:
    """The CPU's flash attention has no rule for vmap, which would take the members one by one."""
    with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
        yield


class Linear(nn.Linear):
    """A linear layer whose weight's gradient comes out of vmap as the weight lies, and not transposed.

    To transpose the gradient would take as long as to compute it; of few rows the outputs are less.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or len(x) >= self.in_features:
            return super().forward(x)
        y = torch.mm(self.weight, x.t()).t().contiguous()
        return y if self.bias is None else y + self.bias


@contextmanager
def linear_layers(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Let the module's linear layers be such ones on a CPU, but not what is derived from them."""
    layers = [part for part in module.modules() if type(part) is nn.Linear and device.type == "cpu"]
    try:
        for layer in layers:
            layer.__class__ = Linear
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Linear
