"""The loss of all members of a stack as one function, which torch compiles on request."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from shoal.trainables.network import Network

# (weights, numbers that differ, batch), all stacked -> losses `(members,)`, and each member's own result
StackedLoss = Callable[[dict[str, Tensor], dict[str, Tensor], Any], tuple[Tensor, Tensor]]

BACKEND = "inductor"  # torch.compile uses it


class CompileError(RuntimeError):
    """A stack's loss cannot be compiled. The cause is a setting, not a member."""


class Called(nn.Module):
    """A member's loss or score as a module, so that functional_call can run it on other weights."""

    def __init__(self, member: Network, method: str):
        super().__init__()
        self.module, self.method = member.module, getattr(member, method)

    def forward(self, *arguments: Any) -> Any:
        return self.method(self.module, *arguments)


def stacked_loss(member: Network, same: Mapping[str, float]) -> StackedLoss:
    """Return a function that computes a member's loss on the weights of many; all share the numbers `same`."""
    called = Called(member, "objective")

    def one(tensors: dict[str, Tensor], numbers: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = functional_call(called, tensors, (batch, {**same, **numbers}))
        return result

    def each(tensors: dict[str, Tensor], numbers: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = vmap(one, randomness="different")(tensors, numbers, batch)
        return result

    return each


def compiled(function: StackedLoss, device: torch.device) -> StackedLoss:
    """Return the function, compiled with its gradients at the first call; on CUDA they become CUDA graphs."""
    graphs = device.type == "cuda" and BACKEND == "inductor"
    settings: dict[str, Any] = {
        "backend": BACKEND,
        "fullgraph": True,
        "dynamic": False,
        "mode": "reduce-overhead" if graphs else None,
        "isolate_recompiles": True,  # otherwise all stacks of a process would share one limit
    }
    made = torch.compile(function, **settings)

    def call(tensors: dict[str, Tensor], numbers: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        losses, rows = made(tensors, numbers, batch)
        return losses, rows.clone() if graphs else rows  # the next step's graph writes to the same memory

    return call


@contextmanager
def explained() -> Iterator[None]:
    """Raise CompileError if torch cannot compile the loss or its gradients."""
    # this import takes a second or more, which workers that do not compile are spared
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    try:
        yield
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        raise CompileError(
            f"cluster.compile: torch.compile cannot compile the loss of these members; set cluster.compile: "
            f"false. {type(error).__name__}: {error}"
        ) from error
