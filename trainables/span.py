"""One member over several processes: the same weights in each (DDP), or a share of them in each (FSDP2)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from shoal.trainables.arrays import map_nest


@dataclass(frozen=True)
class Span:
    """The processes of one member, as one of them sees it."""

    mesh: DeviceMesh  # has one axis
    sharded: bool

    @property
    def rank(self) -> int:
        return self.mesh.get_local_rank()

    @property
    def size(self) -> int:
        return self.mesh.size()

    def cover(self, module: nn.Module) -> nn.Module:
        """Return the module that training calls. If sharded, the given module's weights become shares."""
        if not self.sharded:
            device = next(module.parameters()).device
            ids = [device] if device.type == "cuda" else None
            return DistributedDataParallel(module, device_ids=ids, process_group=self.mesh.get_group())
        blocks = [part for parts in module.modules() if isinstance(parts, nn.ModuleList) for part in parts]
        for part in (*blocks, module):
            fully_shard(part, mesh=self.mesh)
        return module

    def part(self, batch: Any) -> Any:
        """Return this process's rows of a batch; each process gets equally many."""
        return map_nest(self._rows, batch)

    def _rows(self, array: Any) -> Any:
        if len(array) % self.size:
            raise ValueError(
                f"the rows of a batch must be shared out evenly among the {self.size} workers of a member, "
                f"but there are {len(array)}."
            )
        each = len(array) // self.size
        return array[self.rank * each : (self.rank + 1) * each]

    def whole(self, rows: Tensor) -> Tensor:
        """Return the whole batch's values `(rows, ...)`, in its order, from those of this process's rows."""
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous(), group=self.mesh.get_group())
        return torch.cat(parts)

    def gathered(self, rows: Tensor) -> Tensor:
        """Return what `whole` does, with gradients for the rows of this process.

        A row's gradient is the sum of those that all processes have for it, so that each may take the losses of
        its own rows only. All processes must go back through it.
        """
        found: Tensor = Gathered.apply(rows, self)
        return found

    def mean(self, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total, group=self.mesh.get_group())
        return total / self.size

    def agreed(self, values: Tensor) -> Tensor:
        """Return the first process's values, so that all decide alike even if they rounded differently."""
        dist.broadcast(values, group=self.mesh.get_group(), group_src=0)
        return values

    def meet(self) -> None:
        """Wait for the member's other processes."""
        dist.barrier(group=self.mesh.get_group())


class Gathered(torch.autograd.Function):
    """Rows of all processes, with gradients.

    torch has one too, but on gloo it takes a place in the group for one in the world: it works in the first
    group only.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, span: Span) -> Tensor:
        ctx.span = span
        return span.whole(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=ctx.span.mesh.get_group())
        return ctx.span.part(total), None


def uncovered(module: nn.Module) -> nn.Module:
    """Return the module inside of what training calls."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def open_span(size: int, sharded: bool, device: str) -> Span:
    """Divide all processes into groups of `size` neighbours; return this process's group. All must call it."""
    shape = dist.get_world_size() // size, size
    return Span(init_device_mesh(device, shape, mesh_dim_names=("host", "member"))["member"], sharded)


def local(tensor: Tensor) -> Tensor:
    """Return this process's share of a tensor, in the tensor's own memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shared_like(weight: Tensor, share: Tensor) -> Tensor:
    """Return a share as a tensor that is sharded as the weight is."""
    if not isinstance(weight, DTensor):
        return share
    mesh, placements = weight.device_mesh, weight.placements
    return DTensor.from_local(
        share, mesh, placements, run_check=False, shape=weight.shape, stride=weight.stride()
    )
