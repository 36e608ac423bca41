"""Reports in, decisions out, everything recorded: the run's one place where policy meets plumbing."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.policies.parts import archived_within
from shoal.policies.population import Order, PopulationState, Report
from shoal.policies.rules import Rules
from shoal.policies.space import Space
from shoal.policies.standings import rank
from shoal.search.config.run import Run
from shoal.search.decisions import OVER, decide_round
from shoal.search.records import tables


class Watcher(Protocol):
    """Sees every round as it is decided; shows progress."""

    def say(self, line: str) -> None:
        """See what else there is to know."""

    def failed(self, row: dict[str, Any], trace: str) -> None:
        """See a member's failure when it comes about, not again while it lasts."""

    def round(self, round_: int, rows: Sequence[dict[str, Any]], orders: Sequence[Order]) -> None: ...


GiveOrders = Callable[..., Any]  # as the mailbox takes them; None ends the run


@dataclass
class Conductor:
    """Collects a round's reports, decides when the last has come, records, and gives the orders.

    Decisions are synchronous: all members of a round are ranked at the same age, in an order that
    does not depend on who reported first.
    """

    run: Run
    store: Store
    space: Space
    rules: Rules
    state: PopulationState
    give_orders: GiveOrders
    watcher: Watcher
    round: int = 0  # the last round that was decided
    exploits: int = 0
    waiting: dict[int, dict[str, Any]] = field(default_factory=dict)
    early: dict[int, dict[str, Any]] = field(default_factory=dict)  # messages of rounds after the next one
    last: dict[int, dict[str, Any]] = field(default_factory=dict)  # the last round's rows
    leaving: bool = False  # a worker was told to go: this round's checkpoint is written whatever is due
    earlier: list[int] = field(default_factory=list)  # rounds whose weights copies may still go back to
    failure: str = ""  # why the run had to end early
    read_out: list[str] = field(default_factory=list)  # groups whose rows have ended, and members with them
    broken: Exception | None = None  # what keeps this driver from recording anything more
    tests: dict[int, dict[str, float]] = field(default_factory=dict)
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    writing: Future[None] | None = None

    def receive(self, message: dict[str, Any]) -> None:
        """Take in one worker's message; the last of a round brings the decision about."""
        if "decided" not in message:
            self.take(message)
            return
        # a worker that decides itself runs ahead, and its messages overtake one another on their way
        self.early[message["reports"][0]["round"]] = message
        while (following := self.early.pop(self.round + 1, None)) is not None:
            self.take(following)

    def take(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            self.end(message["failed"])
            return
        self.leaving = self.leaving or message.get("leaving", False)
        self.tests |= {row["member"]: row["losses"] for row in message.get("tests", [])}
        for row in message.get("reports", []):
            # a brood that came back from its checkpoint tells again what is long decided
            if row["round"] > self.round:
                self.waiting[row["member"]] = row
        if len(self.waiting) == len(self.state):
            self.decide(self.round + 1, message.get("decided"))

    def decide(self, round_: int, decided: tuple[PopulationState, list[Order]] | None = None) -> None:
        """Decide a round, unless the worker that has all members has `decided` it, and let the members know."""
        self.wait()  # a killed run loses no more than one decided round
        rows = [
            self.waiting[member]
            | {
                "tokens": self.tokens(self.waiting[member]["step"]),
                "arrival": place + (round_ - 1) * len(self.state),
            }
            | {"hyperparameters": self.state[member].hyperparameters}
            for place, member in enumerate(sorted(self.waiting))
        ]
        assert all(row["round"] == round_ for row in rows)
        reasons = self.note_failures(rows)
        self.read_out = sorted({group for row in rows for group in row.get("ended", [])})
        if not any(math.isfinite(row["score"]) for row in rows):
            self.end(f"all members have failed by step {rows[0]['step']}.\n{''.join(reasons[-1:])}")
            return
        reports = [Report(row["member"], row["step"], row["score"]) for row in rows]
        before = self.state
        self.state, orders = decided or self.orders(reports, last=self.is_last(round_))
        self.exploits += sum(order.donor != order.member for order in orders)
        self.round, self.last, self.waiting = round_, {row["member"]: row for row in rows}, {}
        # before anything is written: members need not wait for it, and a round without its records is not whole
        over = [OVER] if self.read_out else []
        self.give_orders(round_, [*map(tuple, orders), *over])
        copies = tables.copy_rows(orders, self.last, before)
        decisions = self.decisions() if self.due(round_) else None
        # also those before: a brood that comes back follows the last orders again
        before_last, self.earlier = self.earlier, earlier_rounds(self.state, self.run.parts)
        # in a thread, for writing here would keep the orders waiting in this process
        spared = [*before_last, *self.earlier]
        self.writing = self.writer.submit(self.write, round_, rows, copies, decisions, spared)
        self.watcher.round(round_, rows, orders)

    def due(self, round_: int) -> bool:
        """Say whether this round's checkpoint is to be written."""
        leaving, self.leaving = self.leaving, False
        return leaving or round_ % self.run.checkpoint.every == 0 or self.is_last(round_)

    def is_last(self, round_: int) -> bool:
        return round_ == self.run.rounds or bool(self.read_out)

    def decisions(self) -> dict[str, Any]:
        found = {"round": self.round, "exploits": self.exploits, "members": population.to_plain(self.state)}
        return found | {"read_out": self.read_out}

    def write(
        self,
        round_: int,
        rows: Sequence[dict[str, Any]],
        copies: Sequence[dict[str, Any]],
        decisions: dict[str, Any] | None,
        spared: Sequence[int],
    ) -> None:
        """Record a round, and save its decisions if its checkpoint is due; spared rounds keep theirs."""
        tables.write_metrics(self.store, round_, rows)
        tables.write_mixing(self.store, round_, rows)
        tables.write_copies(self.store, round_, copies)
        every = self.run.checkpoint.every
        if decisions is None:
            if self.run.checkpoint.keep == 1:  # all files of the newest checkpoint are whole by now
                checkpoints.prune(self.store, round_ - round_ % every, spared)
            return
        checkpoints.save_decisions(self.store, round_, decisions, [round_] * len(self.state))
        # all reports of this round are in, so the checkpoint before it is whole
        old = round_ - (max(self.run.checkpoint.keep, 2) - 1) * every
        checkpoints.prune(self.store, old, spared)

    def wait(self) -> None:
        """Wait until all is written; raises what a write raised."""
        if self.writing is not None:
            self.writing.result()

    def end(self, failure: str) -> None:
        """Let all broods leave where they wait for orders; what ended the run first is why it ended."""
        self.failure = self.failure or failure
        self.give_orders(self.round + 1, None)

    def note_failures(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Write down each member's failure when it comes about; return what they say."""
        reasons = []
        for row in rows:
            before = self.last.get(row["member"], {}).get("score", 0.0)
            trace = row.pop("error", "")
            if math.isfinite(row["score"]) or not (trace or math.isfinite(before)):
                continue
            reasons.append(trace or f"Member {row['member']} diverged: its score is not finite.")
            place = f"failures/round-{row['round']:06d}-member-{row['member']:05d}.txt"
            self.store.write(place, reasons[-1])
            self.watcher.failed(row, reasons[-1])
        return reasons

    def orders(self, reports: list[Report], last: bool) -> tuple[PopulationState, list[Order]]:
        return decide_round(self.run, self.space, self.rules, self.state, reports, last)

    def tokens(self, steps: int) -> int:
        """Return how many tokens a member has trained on in so many steps."""
        return steps * self.run.training.batch * self.run.data.sequence_length if self.run.reads_text else 0

    @property
    def finished(self) -> bool:
        return self.is_last(self.round) and len(self.tests) == len(self.state)

    def best(self) -> int:
        """Return the member with the best last score."""
        return rank({member: row["score"] for member, row in self.last.items()})[0]


def earlier_rounds(state: PopulationState, parts: int) -> list[int]:
    """Return the rounds whose weights copies may go back to: of each part the best there ever were."""
    return sorted({best.decision for _, best in archived_within(state, parts)})
