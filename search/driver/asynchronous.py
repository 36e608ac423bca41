"""Asynchronous decisions: each report is decided when it arrives, against the others' last ones."""

from dataclasses import dataclass, field
from typing import Any

from shoal.cluster import checkpoints
from shoal.policies import population
from shoal.policies.population import MemberState, Order
from shoal.search.config.run import Run
from shoal.search.driver.conductor import Conductor
from shoal.search.messages import Message, Row, Verdict
from shoal.search.records import tables
from shoal.search.records.tables import Event
from shoal.search.records.whole import WholeRound


@dataclass
class Arrivals(Conductor):
    """Decides member by member, and keeps what the members can go on from together.

    A member counts its rounds, which are its reports, by itself; `round` counts as many reports of all as
    there are members. A member's new report says that the file of its round before is written. Until then
    that round is neither recorded nor part of a checkpoint, so the records never know more than a run that
    is resumed.
    """

    saved: dict[int, MemberState] = field(default_factory=dict)  # as of the last round whose file is written
    ended: set[int] = field(default_factory=set)  # those that train no more
    unwritten: list[Row] = field(default_factory=list)  # rows of metrics, in order of arrival
    copied: list[Event] = field(default_factory=list)  # events that are not yet recorded
    new: list[Order] = field(default_factory=list)  # orders that the watcher has not seen
    recorded: int = 0  # exploits in the lineage
    reason: str = ""  # why a member failed last
    arrived: int = 0  # reports decided so far
    kept: list[tuple[int, dict[int, int]]] = field(default_factory=list)  # checkpoints: round, members' rounds

    def __post_init__(self) -> None:
        self.saved = dict(enumerate(self.state))
        self.recorded = self.exploits
        self.kept = [(self.round, self.rounds())] if self.round else []

    @classmethod
    def reached(cls, whole: WholeRound, run: Run) -> dict[str, Any]:
        return {**super().reached(whole, run), "arrived": whole.arrived, "ended": set(whole.ended)}

    def receive(self, message: Message) -> None:
        """Take in one worker's message and answer each member that reports in it."""
        if problem := message.failed or self.compared(message):
            self.end(problem)
            return
        verdicts = []
        for row in sorted(message.rows, key=lambda row: row.member):
            known = self.state[row.member]
            # a brood that came back from its files tells again what is long decided
            if row.round == known.decisions + 1:
                self.saved[row.member] = known
                self.waiting[row.member] = row
                self.stopping.hear([row])
        # a failed member that nobody could replace yet is asked about again at every report
        for member in sorted(self.waiting, key=lambda member: (not self.scored(member), member)):
            verdicts += self.answer(member)
        self.take_tests(message)
        for member in message.tests:
            self.saved[member] = self.state[member]
        if self.waiting and self.ended | self.waiting.keys() == set(range(len(self.state))):
            # nobody is left who could still become able to replace them
            verdicts += [found for member in sorted(self.waiting) for found in self.answer(member, final=True)]
        self.give_orders(verdicts)
        self.settle()

    def scored(self, member: int) -> bool:
        return not self.waiting[member].failed

    def answer(self, member: int, final: bool = False) -> list[Verdict]:
        """Return the verdict on a member's report; none if it has to wait."""
        row, before = self.waiting[member], self.state
        self.read_out = sorted({*self.read_out, *row.ended})
        last = row.step >= self.run.training.steps or bool(row.ended) or bool(self.stopping.reason)
        state, orders = self.orders([row], last=last)
        failed = row.failed
        spent = last or state[member].failures > self.rules.replacements
        if failed and not orders and not spent and not final:
            return []
        self.reason = "".join(self.note_failures([row])) or self.reason
        del self.waiting[member]
        hyperparameters = before[member].hyperparameters
        row = self.counted(row)._replace(arrival=self.arrived, hyperparameters=hyperparameters)
        self.state, self.last[member] = state, row
        self.arrived += 1
        self.unwritten.append(row)
        events = tables.copy_events(orders, self.last, before)
        self.copied += events
        self.new += orders
        self.exploits += sum(event.event == "copy" for event in events)
        if not orders and (last or failed):
            self.ended.add(member)
        order = orders[0] if orders else None
        source = order and (state[order.donor].decisions, order.donor)
        return [Verdict(member, row.round, order, source, member in self.ended)]

    def end(self, failure: str) -> None:
        self.failure = self.failure or failure
        self.give_orders(None)

    def settle(self) -> None:
        """Record and save once as many reports as members have been decided, and at the end."""
        reported = self.last.values()
        if len(self.ended) == len(self.state) and all(row.failed for row in reported):
            step = max(row.step for row in reported)
            self.end(f"all members have failed by step {step}.\n{self.reason}")
            return
        if self.arrived < (self.round + 1) * len(self.state) and not self.finished:
            return
        self.round += 1
        rounds = self.rounds()
        written = [row for row in self.unwritten if row.round <= rounds[row.member]]
        events = [event for event in self.copied if event.round <= rounds[event.member]]
        self.unwritten = [row for row in self.unwritten if row.round > rounds[row.member]]
        self.copied = [event for event in self.copied if event.round > rounds[event.member]]
        self.recorded += sum(event.event == "copy" for event in events)
        if written:
            tables.write_metrics(self.store, self.round, written)
            tables.write_mixing(self.store, self.round, written)
        tables.write_events(self.store, self.round, events)
        self.watcher.recorded(self.round)
        self.checkpoint(rounds)
        self.watcher.round(self.round, list(self.last.values()), self.new)
        self.new = []

    def rounds(self) -> dict[int, int]:
        """Return under which round of its own each member's last file lies."""
        return {member: known.decisions for member, known in self.saved.items()}

    def checkpoint(self, rounds: dict[int, int]) -> None:
        members = tuple(self.saved[member] for member in range(len(self.state)))
        plain = {
            "round": self.round,
            "exploits": self.recorded,
            "arrived": self.arrived,
            "read_out": self.read_out,
            "ended": sorted(member for member in self.ended if self.saved[member] == self.state[member]),
            "members": population.to_plain(members),
            **self.kept_of_stop(),
        }
        checkpoints.save_decisions(self.store, self.round, plain, [known.decisions for known in members])
        self.kept.append((self.round, rounds))
        self.forget_all_but(max(self.run.checkpoint.keep, 2))  # the newest files are still being written

    def forget_all_but(self, most: int) -> None:
        while len(self.kept) > most:
            old, before = self.kept.pop(0)
            checkpoints.forget_decisions(self.store, old)
            for member, first in before.items():
                checkpoints.forget_members(self.store, member, range(max(first, 1), self.kept[0][1][member]))

    def keep_last(self) -> None:
        self.forget_all_but(1)

    @property
    def finished(self) -> bool:
        return len(self.tests) == len(self.state)
