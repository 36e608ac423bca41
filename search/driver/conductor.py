"""Reports in, decisions out, everything recorded: the run's one place where policy meets plumbing."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.policies.parts import archived_within
from shoal.policies.population import Order, PopulationState
from shoal.policies.rules import Rules
from shoal.policies.space import Space
from shoal.policies.standings import rank
from shoal.search.config.run import Run
from shoal.search.decisions import decide_round, report_of
from shoal.search.driver.stopping import Stopping
from shoal.search.messages import Message, OnTestRows, RoundOrders, Row, Shapes, unlike
from shoal.search.records import tables
from shoal.search.records.tables import Event
from shoal.search.records.whole import WholeRound


class Watcher(Protocol):
    """Sees every round as it is decided; shows progress."""

    def say(self, line: str) -> None:
        """See what else there is to know."""

    def failed(self, row: Row, trace: str) -> None:
        """See a member's failure when it comes about, not again while it lasts."""

    def round(self, round_: int, rows: Sequence[Row], orders: Sequence[Order]) -> None: ...

    def recorded(self, part: int) -> None:
        """See that a part of the tables is written; it may be called in another thread."""


# takes a round and its orders, or without rounds a list of verdicts, to the mailbox; None ends the run
GiveOrders = Callable[..., Any]


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
    waiting: dict[int, Row] = field(default_factory=dict)
    early: dict[int, Message] = field(default_factory=dict)  # messages of rounds after the next one
    last: dict[int, Row] = field(default_factory=dict)  # member -> its row of the last round
    leaving: bool = False  # a worker was told to go: this round's checkpoint is written whatever is due
    earlier: list[int] = field(default_factory=list)  # rounds whose weights copies may still go back to
    failure: str = ""  # why the run had to end early
    read_out: list[str] = field(default_factory=list)  # groups whose rows have ended, and members with them
    stopping: Stopping = field(default_factory=lambda: Stopping(None, 0))
    broken: Exception | None = None  # the error that keeps this driver from recording anything more
    shapes: Shapes = field(default_factory=dict)  # the first member that told them is compared with others
    tests: dict[int, OnTestRows] = field(default_factory=dict)
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    writing: Future[None] | None = None

    @classmethod
    def at(
        cls, whole: WholeRound, run: Run, store: Store, give_orders: GiveOrders, watcher: Watcher
    ) -> "Conductor":
        """Return the conductor of a run that goes on from this round."""
        return cls(
            run, store, run.space(), run.rules(), whole.state, give_orders, watcher, **cls.reached(whole, run)
        )

    @classmethod
    def reached(cls, whole: WholeRound, run: Run) -> dict[str, Any]:
        """Return by field what is known of the run so far."""
        return {
            "round": whole.round,
            "exploits": whole.exploits,
            "last": dict(whole.last),
            "earlier": earlier_rounds(whole.state, run.parts),
            "read_out": list(whole.read_out),
            "stopping": Stopping.of(run.stop, run.population.members, whole.stopping),
        }

    def receive(self, message: Message) -> None:
        """Take in one worker's message; the last of a round brings the decision about."""
        if message.decided is None:
            self.take(message)
            return
        # a worker that decides itself runs ahead, and its messages overtake one another on their way
        self.early[message.rows[0].round] = message
        while (following := self.early.pop(self.round + 1, None)) is not None:
            self.take(following)

    def take(self, message: Message) -> None:
        if message.failed is not None:
            self.end(message.failed)
            return
        if problem := self.compared(message):
            self.end(problem)
            return
        self.leaving = self.leaving or message.leaving
        self.take_tests(message)
        for row in message.rows:
            # a brood that came back from its checkpoint tells again what is long decided
            if row.round > self.round:
                self.waiting[row.member] = row
        if len(self.waiting) == len(self.state):
            self.decide(self.round + 1, message.decided)

    def compared(self, message: Message) -> str:
        """Return why the members of a worker that has just begun cannot copy those of another."""
        self.shapes = self.shapes or message.shapes
        return unlike({**self.shapes, **message.shapes})

    def take_tests(self, message: Message) -> None:
        """Take in the members' test losses, and write down what a member's own test raised."""
        self.tests |= message.tests
        for member, tested in message.tests.items():
            if tested.error:
                place = f"failures/test-member-{member:05d}.txt"
                self.store.write(place, tested.error)
                why = tested.error.strip().splitlines()[-1]
                self.watcher.say(f"member {member}: its test failed: {why} ({self.run.directory}/{place})")

    def decide(self, round_: int, decided: tuple[PopulationState, list[Order]] | None = None) -> None:
        """Decide a round, unless the worker that has all members has `decided` it, and let the members know."""
        self.wait()  # a killed run loses no more than one decided round
        rows = self.whole_rows(round_)
        reasons = self.note_failures(rows)
        self.read_out = sorted({group for row in rows for group in row.ended})
        if all(row.failed for row in rows):
            self.end(f"all members have failed by step {rows[0].step}.\n{''.join(reasons[-1:])}")
            return
        self.stopping.hear(rows)
        before = self.state
        self.state, orders = decided or self.orders(rows, last=self.is_last(round_))
        self.exploits += sum(order.donor != order.member for order in orders)
        self.round, self.last, self.waiting = round_, {row.member: row for row in rows}, {}
        # before anything is written: members need not wait for it, and a round without its records is not whole
        self.give_orders(round_, RoundOrders(orders, over=self.over))
        self.record(round_, rows, tables.copy_events(orders, self.last, before))
        self.watcher.round(round_, rows, orders)

    def whole_rows(self, round_: int) -> list[Row]:
        """Return the rows of a round that all members have reported, with what the driver knows of each."""
        assert all(row.round == round_ for row in self.waiting.values())
        first = (round_ - 1) * len(self.state)
        return [
            self.counted(self.waiting[member])._replace(
                arrival=first + place,
                hyperparameters=self.state[member].hyperparameters,
            )
            for place, member in enumerate(sorted(self.waiting))
        ]

    def record(self, round_: int, rows: Sequence[Row], copies: Sequence[Event]) -> None:
        """Begin to write down the round, in a thread: writing here would keep the orders in this process."""
        decisions = self.decisions() if self.due(round_) else None
        # also those before: a brood that comes back follows the last orders again
        before_last, self.earlier = self.earlier, earlier_rounds(self.state, self.run.parts)
        spared = [*before_last, *self.earlier]
        self.writing = self.writer.submit(self.write, round_, rows, copies, decisions, spared)

    def due(self, round_: int) -> bool:
        """Say whether this round's checkpoint is to be written."""
        leaving, self.leaving = self.leaving, False
        return leaving or round_ % self.run.checkpoint.every == 0 or self.is_last(round_)

    def is_last(self, round_: int) -> bool:
        return round_ == self.run.rounds or self.over

    @property
    def over(self) -> bool:
        """Whether the run ends with this round, whatever its last step is."""
        return bool(self.read_out or self.stopping.reason)

    def decisions(self) -> dict[str, Any]:
        found = {"round": self.round, "exploits": self.exploits, "members": population.to_plain(self.state)}
        return found | {"read_out": self.read_out, **self.kept_of_stop()}

    def kept_of_stop(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of `stop:`; nothing for a run without it."""
        return {} if self.run.stop is None else {"stopping": self.stopping.plain()}

    def write(
        self,
        round_: int,
        rows: Sequence[Row],
        copies: Sequence[Event],
        decisions: dict[str, Any] | None,
        spared: Sequence[int],
    ) -> None:
        """Record a round, and save its decisions if its checkpoint is due; spared rounds keep theirs."""
        tables.write_metrics(self.store, round_, rows)
        tables.write_mixing(self.store, round_, rows)
        tables.write_events(self.store, round_, copies)
        self.watcher.recorded(round_)
        every = self.run.checkpoint.every
        if decisions is None:
            if self.run.checkpoint.keep == 1:  # all files of the newest checkpoint are whole by now
                checkpoints.prune(self.store, round_ - round_ % every, spared)
            return
        checkpoints.save_decisions(self.store, round_, decisions, [round_] * len(self.state))
        # all reports of this round are in, so the checkpoint before it is whole
        old = round_ - (max(self.run.checkpoint.keep, 2) - 1) * every
        checkpoints.prune(self.store, old, spared)

    def keep_last(self) -> None:
        """Delete all checkpoints but the last one, once all files of a run are written."""
        checkpoints.prune(self.store, self.round, earlier_rounds(self.state, self.run.parts))

    def wait(self) -> None:
        """Wait until all is written; raises what a write raised."""
        if self.writing is not None:
            self.writing.result()

    def end(self, failure: str) -> None:
        """Let all broods leave where they wait for orders; what ended the run first is why it ended."""
        self.failure = self.failure or failure
        self.give_orders(self.round + 1, None)

    def note_failures(self, rows: Sequence[Row]) -> list[str]:
        """Write down each member's failure when it comes about; return what they say."""
        reasons = []
        for row in rows:
            before = self.last.get(row.member)
            lasts = before is not None and before.failed
            if not row.failed or (lasts and not row.error):
                continue
            reasons.append(row.error or f"Member {row.member} diverged: its score is not finite.")
            place = f"failures/round-{row.round:06d}-member-{row.member:05d}.txt"
            self.store.write(place, reasons[-1])
            self.watcher.failed(row, reasons[-1])
        return reasons

    def orders(self, rows: Sequence[Row], last: bool) -> tuple[PopulationState, list[Order]]:
        reports = [report_of(row) for row in rows]
        return decide_round(self.run, self.space, self.rules, self.state, reports, last)

    def counted(self, row: Row) -> Row:
        """Return a member's row with how many rows and tokens its weights have trained."""
        rows = row.step * (self.run.training.batch if self.run.takes_rows else row.rows_a_step)
        tokens = rows * self.run.data.sequence_length * self.run.reads_tokens
        return row._replace(rows=rows, tokens=tokens)

    @property
    def finished(self) -> bool:
        return self.is_last(self.round) and len(self.tests) == len(self.state)

    def best(self) -> int:
        """Return the member with the best last score."""
        return rank({member: row.score for member, row in self.last.items()})[0]


def earlier_rounds(state: PopulationState, parts: int) -> list[int]:
    """Return the rounds whose weights copies may go back to: of each part the best there ever were."""
    return sorted({best.decision for _, best in archived_within(state, parts)})
