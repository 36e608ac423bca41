"""How a worker comes by its members' orders: the conductor decides, or the worker itself if it has them all."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shoal.cluster import mailbox
from shoal.policies.population import Order, PopulationState
from shoal.policies.rules import Rules
from shoal.policies.space import Space
from shoal.search.config.run import Run
from shoal.search.decisions import decide_round, report_of
from shoal.search.messages import Message, RoundOrders

# rounds: intervals shorter than a record takes to write do not wait for each record
MOST_UNANSWERED = 8


class Orders(Protocol):
    over: bool  # whether the last round that was asked for ends the training

    def next(self, round_: int, message: Message | None) -> Sequence[Order] | None:
        """Report, if there is a message, and return the round's orders; None ends the run."""

    def settle(self) -> bool:
        """Wait until the conductor has taken in all that was reported; say whether the run goes on."""


@dataclass
class FromConductor:
    """Waits for the conductor's decision, which needs the reports of workers elsewhere."""

    actor: Any
    brood: int
    over: bool = False

    def next(self, round_: int, message: Message | None) -> Sequence[Order] | None:
        told: RoundOrders | None = mailbox.next_orders(self.actor, self.brood, round_, message)
        if told is None:
            return None
        self.over = told.over
        return told.orders

    def settle(self) -> bool:
        return True


@dataclass
class OwnDecision:
    """Decides here, since all reports are here, and tells the conductor, which records what was decided.

    The conductor's answers are waited for some rounds later: it may end the run, and is never further behind
    than that.
    """

    run: Run
    state: PopulationState
    actor: Any
    brood: int
    space: Space = field(init=False)
    rules: Rules = field(init=False)
    answers: deque[Any] = field(default_factory=deque)  # those to the last reports, still on their way
    over: bool = False

    def __post_init__(self) -> None:
        self.space, self.rules = self.run.space(), self.run.rules()

    def next(self, round_: int, message: Message | None) -> Sequence[Order] | None:
        assert message is not None, "a worker that decides speaks for its members"
        if not self.settle(MOST_UNANSWERED - 1):
            return None
        if all(row.failed for row in message.rows):
            # the conductor ends such a run, and says why; nothing reported before may be overtaken
            asked = FromConductor(self.actor, self.brood)
            return asked.next(round_, message) if self.settle() else None
        reports = [report_of(row) for row in message.rows]
        self.over = any(row.ended for row in message.rows)
        last = self.over or round_ == self.run.rounds
        self.state, orders = decide_round(self.run, self.space, self.rules, self.state, reports, last)
        told = message._replace(decided=(self.state, orders))
        self.answers.append(mailbox.report_round(self.actor, self.brood, round_, told))
        # the conductor has to know of it before the worker goes
        return orders if not message.leaving or self.settle() else None

    def settle(self, ahead: int = 0) -> bool:
        while len(self.answers) > ahead:
            if not mailbox.goes_on(self.answers.popleft()):
                return False
        return True


def way_to_orders(run: Run, state: PopulationState, round_: int, actor: Any, brood: int, told: bool) -> Orders:
    """Return how a worker comes by its orders from a round on, at which the population was in this state.

    It decides itself if it has the whole population, but not where it has to be `told`, as with a ledger or
    with `stop:`. A worker that comes back from a checkpoint before the last decided round has to follow what
    was decided then.
    """
    alone = run.hosts == 1 and run.cluster.workers_per_member == 1 and not told
    if alone and mailbox.decided(actor) in (None, round_):
        return OwnDecision(run, state, actor, brood)
    return FromConductor(actor, brood)
