"""The members of one worker, in teams that train together: as one stacked model, or one by one."""

import time
import traceback
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from shoal.policies.population import Order
from shoal.search.corpus.batches import MixedBatches
from shoal.search.errors import Exhausted
from shoal.search.members.mixed import Mixed, train_visits
from shoal.search.messages import Reading, Row
from shoal.search.worker.guarded import cost_of_member, less_price, measured
from shoal.trainables.member import Member
from shoal.trainables.network import Network
from shoal.trainables.stack import Stack, stacks
from shoal.trainables.stacked_loss import CompileError

SMALL = 100_000  # weights below which a stack is quicker on a CPU too: benchmarks/stack.py


@dataclass(frozen=True)
class Team:
    """Members by number; with a `stack` they train as one model, else it is one member."""

    members: dict[int, Member]
    stack: Stack | None = None

    def train(self, steps: int) -> dict[int, Row]:
        """Train an interval, or as far as there are rows; return each member's row, but for its place.

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

    def rows(self, train_losses: Mapping[int, float], trained: float) -> dict[int, Row]:
        """Evaluate after `trained` seconds of training; return each member's row, but for its place.

        The row has the member's own step only where rows have ended; else the round says it.
        """
        began = time.perf_counter()
        scores = self.stack.evaluate() if self.stack else [each.evaluate() for each in self.each()]
        measures = [measured(each) for each in self.each()]
        evaluated = time.perf_counter() - began
        ends = self.ends()
        found = {}
        for (number, member), (score, losses), others in zip(
            self.members.items(), scores, measures, strict=True
        ):
            found[number] = Row(
                number,
                step=int(member.trained) if ends else 0,
                score=less_price(member, score) if np.isfinite(score) else float("nan"),
                scored=bool(getattr(member, "scored", True)),
                train_loss=train_losses[number],
                train_seconds=trained / len(scores),
                evaluate_seconds=evaluated / len(scores),
                stacked=self.stack is not None,
                cost=cost_of_member(member),
                losses=dict(losses),
                loss_errors=dict(getattr(member, "loss_errors", {})),
                measures=others,
                rows_a_step=getattr(member, "rows_a_step", 0),
                mixture=member.account() if isinstance(member, Mixed) else None,
                ended=ends.get(number, ()),
                **reading(member)._asdict(),
            )
        return found

    def ends(self, failed: Set[int] = frozenset()) -> dict[int, list[str]]:
        """Return the members that have no rows left, each with the groups that it has read to the end.

        Where only `failed` members have none, all others end with them: who is in a stack draws together.
        """
        known = {number: mixed_batches(member) for number, member in self.members.items()}
        found = {number: each.read_out() for number, each in known.items() if each and not each.left(1)}
        if found and found.keys() <= failed:
            return {number: next(iter(found.values())) for number in self.members}
        return found

    def failure(self) -> dict[int, Row]:
        """Return the rows of a team whose code is raising."""
        error = traceback.format_exc()
        return {number: failed_row(number, member, error) for number, member in self.members.items()}

    def without(self, gone: Set[int]) -> "Team":
        """Return the team of those that are left."""
        left = {number: member for number, member in self.members.items() if number not in gone}
        networks = [member for member in left.values() if isinstance(member, Network)]
        return Team(left, Stack(networks, self.stack.compile) if self.stack and networks else None)

    def advance(self, steps: int) -> list[float]:
        """Return each member's mean training loss; a stack pauses wherever a member's visit ends."""
        if self.stack is None:
            return [each.train(steps) for each in self.each()]
        followers = [member for member in self.stack.members if isinstance(member, Mixed)]
        return train_visits(followers, self.stack.train, steps) if followers else self.stack.train(steps)

    def each(self) -> list[Member]:
        return list(self.members.values())

    def holds(self, order: Order) -> bool:
        """Say whether a copy can be made inside the stack."""
        return self.stack is not None and {order.member, order.donor} <= self.members.keys()

    def copy(self, orders: Sequence[Order]) -> str:
        """Carry out all copies inside the stack at once; return the error if a member's own code raises."""
        if self.stack is None or not orders:
            return ""
        told = {order.member: order for order in orders}
        places = {number: place for place, number in enumerate(self.members)}
        parents = [places[told[number].donor if number in told else number] for number in places]
        settings = [
            told[number].hyperparameters if number in told else member.hyperparameters
            for number, member in zip(places, self.stack.members, strict=True)
        ]
        try:
            self.stack.gather(parents, settings)
        except Exception:
            return traceback.format_exc()
        return ""


def teams(members: Mapping[int, Member], stack: bool | None, compile: bool = False) -> list[Team]:
    """Group the members that can be stacked, if they are to be; the rest train one by one, and uncompiled."""
    found = []
    for numbers in stacks(members):
        team = {number: members[number] for number in numbers}
        networks = [member for member in team.values() if isinstance(member, Network)]
        stacked = compile or pays(networks[0]) if stack is None and networks else stack
        if networks and not networks[0].alone and stacked:
            # a single member is stacked too: it then mostly rounds as in a larger stack, so a run whose broods
            # change keeps its numbers
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


def failed_row(number: int, member: Member, error: str = "") -> Row:
    """Return the row of a member that has failed: of all there is to say, only what it has read."""
    read = reading(member)
    return Row(number, epochs=read.epochs, skipped=read.skipped, error=error)


def reading(member: Member) -> Reading:
    """Return how far a member has read its groups; batches of a class of one's own tell nothing."""
    tell = getattr(getattr(member, "batches", None), "reading", None)
    return tell() if tell else Reading()


def mixed_batches(member: Member) -> MixedBatches | None:
    """Return a member's batches if they are rows of groups, which may end."""
    batches = getattr(member, "batches", None)
    return batches if isinstance(batches, MixedBatches) else None
