"""The mailbox actor of a run: reports go up, orders come down, weights pass from worker to worker.

The weights themselves never pass through here: a worker puts them into the object store and posts
the reference, and the receiver pulls them from the donor's node.
"""

import asyncio
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Key = tuple[int, int]  # (round, member)


class Mailbox:
    """All waiting is done here, on events, so that no worker polls."""

    def __init__(self, broods: int, keep: int):
        self.keep = keep  # rounds whose orders and weights are kept
        self.reports: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(broods)]
        self.orders: dict[int, Any] = {}
        self.weights: dict[Key, list[ray.ObjectRef]] = {}
        self.changed = asyncio.Condition()

    async def report(self, brood: int, message: Any) -> None:
        await self.reports[brood].put(message)

    async def next_report(self, brood: int) -> Any:
        """Wait for a worker's message; None says that the brood's trainer has ended."""
        return await self.reports[brood].get()

    async def give_orders(self, round_: int, orders: Any) -> None:
        async with self.changed:
            self.orders[round_] = orders
            # a brood that comes back from a checkpoint asks for older rounds again
            self.orders.pop(round_ - self.keep, None)
            for key in [key for key in self.weights if key[0] <= round_ - self.keep]:
                del self.weights[key]
            self.changed.notify_all()

    async def take_orders(self, round_: int) -> Any:
        """Wait until the round is decided and return its orders."""
        async with self.changed:
            await self.changed.wait_for(lambda: round_ in self.orders)
            return self.orders[round_]

    async def post_weights(self, round_: int, member: int, reference: list[ray.ObjectRef]) -> None:
        async with self.changed:
            self.weights[round_, member] = reference
            self.changed.notify_all()

    async def take_weights(self, round_: int, member: int) -> list[ray.ObjectRef]:
        async with self.changed:
            await self.changed.wait_for(lambda: (round_, member) in self.weights)
            return self.weights[round_, member]

    async def forget_weights(self, round_: int, member: int, reference: list[ray.ObjectRef]) -> None:
        """Drop weights that were lost with the worker that had put them."""
        async with self.changed:
            if self.weights.get((round_, member)) == reference:
                del self.weights[round_, member]


def start_exchange(broods: int, keep: int) -> Any:
    """Start the mailbox; any number of workers may wait in it at once.

    It stays with the driver: what would be lost with it is what brings lost workers back.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 10_000, "scheduling_strategy": here}
    return ray.remote(Mailbox).options(**options).remote(broods, keep)
