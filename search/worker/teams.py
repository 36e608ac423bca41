"""The members of one worker, in teams that train together: as one stacked model, or one by one."""

import time
import traceback
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.policies.population import Order
from shoal.search.corpus.batches import MixedBatches
from shoal.search.errors import Exhausted
from shoal.search.members.mixed import MixedModel, VisitBatches, train_visits
from shoal.search.members.sampled import SampledBatches
from shoal.trainables.member import Member
from shoal.trainables.network import Network
from shoal.trainables.stack import Stack, stacks
from shoal.trainables.stacked_loss import CompileError

FAILED = {
    "score": np.nan,
    "train_loss": np.nan,
    "train_seconds": 0.0,
    "evaluate_seconds": 0.0,
    "stacked": False,
}
SMALL = 100_000  # weights below which a stack is quicker on a CPU too: benchmarks/stack.py


@dataclass(frozen=True)
class Team:
    """Members by number; with a `stack` they train as one model, else it is one member."""

    members: dict[int, Member]
    stack: Stack | None = None

    def train(self, steps: int) -> dict[int, dict[str, Any]]:
        """Train an interval, or as far as there are rows; return a row of metrics a member.

        What else is raised is the failure of the team.
        """
        began = time.perf_counter()
        try:
            losses = self.step(self.reach(steps))
            return self.rows(losses, time.perf_counter() - began)
        except (Exhausted, CompileError):
            raise
        except Exception:  # whatever a member's own code raises concerns its team alone
            return self.failure()

    def reach(self, most: int) -> int:
        """Return how many of the next steps the team can train: as many as all of its members have rows for.

        One where there never were any: it then says so.
        """
        left = min([most, *(batches.left(most) for batches in map(mixed_batches, self.each()) if batches)])
        return left or int(most > 0 and not self.begun())

    def begun(self) -> bool:
        return any(member.trained for member in self.each())

    def step(self, steps: int) -> dict[int, float]:
        """Train on; return each member's mean training loss. Raises Exhausted where there never were rows."""
        try:
            if steps:
                return dict(zip(self.members, self.advance(steps), strict=True))
        except Exhausted:  # a window may leave out rows that were counted on
            if not self.begun():
                raise
        return dict.fromkeys(self.members, float("nan"))

    def rows(self, losses: Mapping[int, float], trained: float) -> dict[int, dict[str, Any]]:
        """Evaluate after `trained` seconds of training; return a row of metrics a member."""
        began = time.perf_counter()
        scores = self.stack.evaluate() if self.stack else [each.evaluate() for each in self.each()]
        seconds = trained / len(scores), (time.perf_counter() - began) / len(scores)
        ends = self.ends()
        return {
            number: row(losses[number], *score, self.stack is not None, *seconds)
            | kept(member)
            | mixed(member)
            | ({"step": member.trained} if ends else {})
            | ({"ended": ends[number]} if number in ends else {})
            for (number, member), score in zip(self.members.items(), scores, strict=True)
        }

    def ends(self, failed: Set[int] = frozenset()) -> dict[int, list[str]]:
        """Return the members that have no rows left, each with the groups that it has read to the end.

        Where only `failed` members have none, all others end with them: who is in a stack draws together.
        """
        known = {number: mixed_batches(member) for number, member in self.members.items()}
        found = {number: each.read_out() for number, each in known.items() if each and not each.left(1)}
        if found and found.keys() <= failed:
            return {number: next(iter(found.values())) for number in self.members}
        return found

    def failure(self) -> dict[int, dict[str, Any]]:
        """Return the rows of a team whose code is raising."""
        return {number: FAILED | {"error": traceback.format_exc()} for number in self.members}

    def without(self, gone: Set[int]) -> "Team":
        """Return the team of those that are left."""
        left = {number: member for number, member in self.members.items() if number not in gone}
        networks = [member for member in left.values() if isinstance(member, Network)]
        return Team(left, Stack(networks, self.stack.compile) if self.stack and networks else None)

    def advance(self, steps: int) -> list[float]:
        """Return each member's mean training loss; a stack pauses wherever a member's visit ends."""
        if self.stack is None:
            return [each.train(steps) for each in self.each()]
        followers = [member for member in self.stack.members if isinstance(member, MixedModel)]
        return train_visits(followers, self.stack.train, steps) if followers else self.stack.train(steps)

    def each(self) -> list[Member]:
        return list(self.members.values())

    def holds(self, order: Order) -> bool:
        """Say whether a copy can be made inside the stack."""
        return self.stack is not None and {order.member, order.donor} <= self.members.keys()

    def copy(self, orders: Sequence[Order]) -> None:
        """Carry out all copies inside the stack at once."""
        if self.stack is None or not orders:
            return
        told = {order.member: order for order in orders}
        places = {number: place for place, number in enumerate(self.members)}
        parents = [places[told[number].donor if number in told else number] for number in places]
        settings = [
            told[number].hyperparameters if number in told else member.hyperparameters
            for number, member in zip(places, self.stack.members, strict=True)
        ]
        self.stack.gather(parents, settings)


def teams(members: Mapping[int, Member], stack: bool | None, compile: bool = False) -> list[Team]:
    """Group the members that can be stacked, if they are to be; the rest train one by one, and uncompiled."""
    found = []
    for numbers in stacks(members):
        team = {number: members[number] for number in numbers}
        networks = [member for member in team.values() if isinstance(member, Network)]
        stacked = compile or pays(networks[0]) if stack is None and networks else stack
        if networks and not networks[0].alone and stacked:
            # also one alone: it mostly rounds as it would among others, so regrouped broods go on alike
            found.append(Team(team, Stack(networks, compile)))
        else:
            found += [Team({number: member}) for number, member in team.items()]
    return found


def pays(member: Network) -> bool:
    """Say whether a stack is likely to be quicker: on a GPU, and of small members on a CPU."""
    return (
        member.stacks_itself
        or member.device.type != "cpu"
        or sum(weight.numel() for weight in member.weights().values()) < SMALL
    )


def row(
    train_loss: float,
    score: float,
    losses: Mapping[str, float],
    stacked: bool,
    train_seconds: float,
    evaluate_seconds: float,
) -> dict[str, Any]:
    return {
        "score": float(score) if np.isfinite(score) else float("nan"),
        "train_loss": train_loss,
        "stacked": stacked,
        "train_seconds": train_seconds,
        "evaluate_seconds": evaluate_seconds,
        **{f"loss_{group}": loss for group, loss in losses.items()},
    }


def kept(member: Member) -> dict[str, Any]:
    """Return the share of rows that a member's sampling policy keeps, if it has one."""
    batches = getattr(member, "batches", None)
    return {"kept": batches.kept} if isinstance(batches, SampledBatches) else {}


def mixed_batches(member: Member) -> MixedBatches | None:
    """Return a member's batches if they are rows of groups, which may end."""
    batches = getattr(member, "batches", None)
    return batches if isinstance(batches, MixedBatches) else None


def mixed(member: Member) -> dict[str, Any]:
    """Return what the run records of a member's own mixture, if it has one."""
    return {"mixing": member.account()} if isinstance(member, MixedModel) else {}


def read(member: Member) -> dict[str, float]:
    """Return how far a member has read each group, where its batches come from groups."""
    batches = getattr(member, "batches", None)
    batches = batches.mixed if isinstance(batches, VisitBatches) else batches
    return batches.progress() if isinstance(batches, MixedBatches | SampledBatches) else {}
