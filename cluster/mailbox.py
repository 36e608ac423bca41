"""The mailbox actor of a run: reports go up, orders come down, weights pass from worker to worker.

The weights themselves never pass through here: a worker puts them into the object store and posts
the reference, and the receiver pulls them from the donor's node.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Key = tuple[int, ...]  # (round, member), and where a member spans workers the part
Posted = list[ray.ObjectRef]  # the one reference to them, in a list so that Ray does not resolve it


class Answered(Protocol):
    """The answer to a member's report; the mailbox looks at nothing else of it."""

    @property
    def member(self) -> int: ...

    @property
    def round(self) -> int: ...

    @property
    def source(self) -> Key | None:
        """The (round, member) whose published weights go with it."""


class Mailbox:
    """All waiting is done here, on events, so that no worker polls."""

    def __init__(self, broods: int, keep: int):
        self.keep = keep  # rounds whose orders and weights are kept
        self.reports: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(broods)]
        self.orders: dict[int, Any] = {}
        self.weights: dict[Key, Posted] = {}
        self.verdicts: dict[int, tuple[Answered, Posted]] = {}  # member -> its last
        self.ended = False
        self.changed = asyncio.Condition()

    async def report(self, brood: int, message: Any) -> None:
        await self.reports[brood].put(message)

    async def next_reports(self, brood: int) -> list[Any]:
        """Wait for workers' messages and return all there are; a None says that the trainer has ended."""
        queue = self.reports[brood]
        found = [await queue.get()]
        while not queue.empty():
            found.append(queue.get_nowait())
        return found

    async def give_orders(self, round_: int, orders: Any) -> None:
        async with self.changed:
            self.orders[round_] = orders
            # a brood that comes back from a checkpoint asks for older rounds again
            self.orders.pop(round_ - self.keep, None)
            for key in [key for key in self.weights if key[0] <= round_ - self.keep]:
                del self.weights[key]
            self.changed.notify_all()

    async def take_orders(self, round_: int, brood: int, message: Any) -> Any:
        """Take in a worker's message, if it has one, and return the round's orders when it is decided."""
        if message is not None:
            await self.reports[brood].put(message)
        async with self.changed:
            await self.changed.wait_for(lambda: round_ in self.orders)
            return self.orders[round_]

    async def hear(self, round_: int, brood: int, message: Any) -> bool:
        """Take in a round's message; when that round has been answered, say whether the run goes on."""
        await self.reports[brood].put(message)
        async with self.changed:
            # an older answer may be gone already when there are newer ones
            await self.changed.wait_for(lambda: max(self.orders, default=0) >= round_)
            return None not in self.orders.values()

    async def decided(self) -> int | None:
        """Return the last round that orders were given for."""
        return max(self.orders, default=None)

    async def publish(
        self, brood: int, message: Any, round_of: dict[int, int], weights: dict[int, Posted]
    ) -> None:
        """Take in a message, and the weights of each member that its report tells of."""
        self.weights |= {(round_of[member], member): reference for member, reference in weights.items()}
        await self.reports[brood].put(message)

    async def give_verdicts(self, verdicts: list[Answered] | None) -> None:
        """Answered members one by one, each with the weights it is to take; None ends the run."""
        async with self.changed:
            self.ended = verdicts is None
            for verdict in verdicts or []:
                member, source = verdict.member, verdict.source
                self.verdicts[member] = verdict, [] if source is None else self.weights.get(source, [])
                # copies are made from a member's last decided report, so older weights can go
                for key in [key for key in self.weights if key[1] == member and key[0] < verdict.round]:
                    del self.weights[key]
            self.changed.notify_all()

    async def take_verdicts(self, known: dict[int, int]) -> list[tuple[Answered, Posted]] | None:
        """Wait for verdicts on later rounds than these members know of; None says that the run ends."""

        def found() -> list[tuple[Answered, Posted]]:
            return [
                self.verdicts[member]
                for member, round_ in known.items()
                if member in self.verdicts and self.verdicts[member][0].round > round_
            ]

        async with self.changed:
            await self.changed.wait_for(lambda: self.ended or found())
            return None if self.ended else found()

    async def post_weights(self, key: Key, reference: Posted) -> None:
        async with self.changed:
            self.weights[key] = reference
            self.changed.notify_all()

    async def take_weights(self, key: Key) -> Posted:
        async with self.changed:
            await self.changed.wait_for(lambda: key in self.weights)
            return self.weights[key]

    async def forget_weights(self, key: Key, reference: Posted) -> None:
        """Drop weights that were lost with the worker that had put them."""
        async with self.changed:
            if self.weights.get(key) == reference:
                del self.weights[key]


def start_mailbox(broods: int, keep: int) -> Any:
    """Start the mailbox; any number of workers may wait in it at once.

    It stays on the driver's node: lost workers come back by what it holds.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 10_000, "scheduling_strategy": here}
    return ray.remote(Mailbox).options(**options).remote(broods, keep)


def send_home(actor: Any, broods: int) -> None:
    """End all trials where they wait; Ray takes down what they had started."""
    ray.get([actor.report.remote(brood, None) for brood in range(broods)])


def next_orders(actor: Any, brood: int, round_: int, message: Any = None) -> Any:
    """Report, if there is a message, and wait until the round is decided."""
    return ray.get(actor.take_orders.remote(round_, brood, message))


def report_round(actor: Any, brood: int, round_: int, message: Any) -> ray.ObjectRef:
    """Report without waiting; `goes_on` takes what this returns."""
    return actor.hear.remote(round_, brood, message)


def goes_on(answer: ray.ObjectRef) -> bool:
    """Wait until a round that was reported is answered, and say whether the run goes on."""
    return bool(ray.get(answer))


def decided(actor: Any) -> int | None:
    """Return the last round that was decided since the driver's start, if there is one."""
    return ray.get(actor.decided.remote())


def send_report(actor: Any, brood: int, message: Any) -> None:
    ray.get(actor.report.remote(brood, message))


def direct_way(sample: Any, wanted: bool | None) -> bool:
    """Say whether tensors like this one go straight from memory to memory, which needs NIXL.

    Raises RuntimeError where it is wanted and not available. By default only tensors on a GPU go so.
    """
    if wanted is False or (wanted is None and sample.device.type == "cpu"):
        return False
    try:
        ray.put(sample, _tensor_transport="nixl")
    except Exception as error:  # Ray and NIXL raise many kinds of errors where something is missing
        if wanted:
            raise RuntimeError(
                f"cluster.direct: needs NIXL on every worker; install shoal[direct] there. It said: {error}"
            ) from error
        return False
    return True


def post_weights(actor: Any, key: Key, state: Any, direct: bool = False) -> None:
    """Post a reference to a snapshot under (round, member, part): it is in the object store, or where it was.

    With `direct` its tensors stay in this worker's memory, and receivers read them there.
    """
    reference = ray.put(state, _tensor_transport="nixl") if direct else ray.put(state)
    ray.get(actor.post_weights.remote(key, [reference]))


def take_weights(actor: Any, key: Key) -> Any:
    """Wait for the donor's weights; if its worker died with them, it comes back and posts them again."""
    while True:
        reference = ray.get(actor.take_weights.remote(key))
        try:
            return ray.get(reference[0])
        except (ray.exceptions.ObjectLostError, ray.exceptions.RayDirectTransportError):
            ray.get(actor.forget_weights.remote(key, reference))


def publish_states(
    actor: Any, brood: int, message: Any, rounds: Mapping[int, int], states: Mapping[int, Any]
) -> None:
    """Report and put the members' states into the object store, without waiting for an answer."""
    weights = {member: [ray.put(state)] for member, state in states.items()}
    actor.publish.remote(brood, message, dict(rounds), weights)


def next_verdicts(actor: Any, known: Mapping[int, int]) -> Any:
    return ray.get(actor.take_verdicts.remote(dict(known)))


def fetch_state(reference: Sequence[ray.ObjectRef]) -> Any:
    """Return a published state, or None where it was lost with the worker that had put it."""
    try:
        return ray.get(reference[0]) if reference else None
    except ray.exceptions.ObjectLostError:
        return None
