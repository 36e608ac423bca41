"""The loss of all members of a stack as one function, compiled by torch if asked for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trainables.network import Network

# from weights, the numbers that differ and a batch, all stacked, to losses `(members,)` and what each returned
StackedLoss = Callable[[dict[str, Tensor], dict[str, Tensor], Any], tuple[Tensor, Tensor]]

BACKEND = "inductor"  # torch.compile's


class CompileError(RuntimeError):
    """A stack's loss cannot be compiled: the fault of a setting, and of no member."""


class Called(nn.Module):
    """A member's loss or score as a module, so that functional_call can run it on other weights."""

    def __init__(self, member: Network, method: str):
        super().__init__()
        self.module, self.method = member.module, getattr(member, method)

    def forward(self, *arguments: Any) -> Any:
        return self.method(self.module, *arguments)


def stacked_loss(member: Network, same: Mapping[str, float]) -> StackedLoss:
    """Return a member's loss on the weights of many, with the numbers that are the same for all."""
    called = Called(member, "objective")

    def one(tensors: dict[str, Tensor], numbers: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = functional_call(called, tensors, (batch, {**same, **numbers}))
        return result

    def each(tensors: dict[str, Tensor], numbers: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = vmap(one, randomness="different")(tensors, numbers, batch)
        return result

    return each


def compiled(function: StackedLoss, device: torch.device) -> StackedLoss:
    """Return the function, compiled at its first call with its gradients; on CUDA they become CUDA graphs."""
    graphs = device.type == "cuda" and BACKEND == "inductor"
    settings: dict[str, Any] = {
        "backend": BACKEND,
        "fullgraph": True,
        "dynamic": False,
        "mode": "reduce-overhead" if graphs else None,
        "isolate_recompiles": True,  # else all stacks of a process would share one limit
    }
    made = torch.compile(function, **settings)

    def call(tensors: dict[str, Tensor], numbers: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        losses, rows = made(tensors, numbers, batch)
        return losses, rows.clone() if graphs else rows  # the next step's graph writes where this one's did

    return call


@contextmanager
def explained() -> Iterator[None]:
    """Raise CompileError for what torch cannot compile, be it the loss or its gradients."""
    # at the head of the file it would cost every worker a second or more
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    try:
        yield
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        raise CompileError(
            f"cluster.compile: torch.compile cannot compile the loss of these members; set cluster.compile: "
            f"false. {type(error).__name__}: {error}"
        ) from error
