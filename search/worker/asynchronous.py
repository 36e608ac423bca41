"""A worker's members in asynchronous training: they take turns, report, train on, and follow orders later."""

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from shoal.cluster import checkpoints, mailbox
from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.errors import Exhausted
from shoal.search.members.build import build_members
from shoal.search.messages import Message, Row, Verdict
from shoal.search.records.beginning import begun_with
from shoal.search.worker.alike import tell_shapes
from shoal.search.worker.guarded import LOST, loaded, lost_state, taken, trained_by
from shoal.search.worker.spent import CHECKPOINT, EXPLOIT, Spent
from shoal.search.worker.teams import Team, failed_row, teams
from shoal.trainables.member import Member, SavedState
from shoal.trainables.stacked_loss import CompileError

STANDING = "standing"  # the key under which a member's file says what it goes on with
WEIGHTS_LOST = "The weights that this member was to copy were lost with their worker."
LOOKS = 8  # an interval is trained in so many pieces: after each, members look whether an order has come


class Standing(TypedDict):
    """What a member's file says that it goes on with, beside its state."""

    hyperparameters: dict[str, Any]
    ended: bool


class Inbox:
    """Takes verdicts out of the mailbox in a thread of its own: members that train look without waiting."""

    def __init__(self, actor: Any, rounds: Mapping[int, int]):
        self.verdicts: dict[int, Verdict] = {}
        self.changed = threading.Condition()
        self.closed = False  # the run ends
        self.error: BaseException | None = None
        threading.Thread(target=self._listen, args=(actor, dict(rounds)), daemon=True).start()

    def look(self, member: int) -> Verdict | None:
        return self.verdicts.get(member)

    def take(self, member: int) -> None:
        with self.changed:
            del self.verdicts[member]

    def wait(self) -> None:
        """Wait until there is something; raises what the listening thread raised."""
        with self.changed:
            self.changed.wait_for(lambda: self.verdicts or self.closed)
        if self.error is not None:
            raise RuntimeError("The mailbox cannot be reached.") from self.error

    def _listen(self, actor: Any, rounds: dict[int, int]) -> None:
        try:
            while (found := mailbox.next_verdicts(actor, rounds)) is not None:
                news = {each.member: each._replace(weights=weights) for each, weights in found}
                rounds |= {member: verdict.round for member, verdict in news.items()}
                with self.changed:
                    self.verdicts |= news
                    self.changed.notify_all()
        except BaseException as error:  # `wait` raises it in the thread that trains
            self.error = error
        with self.changed:
            self.closed = True
            self.changed.notify_all()


@dataclass
class Turns:
    """The members of one worker, each as far as it has come by itself.

    A member has at most one report unanswered. It trains on meanwhile, and if it is ready again before the
    answer is there, it passes that ready point over.
    """

    run: Run
    store: Store
    actor: Any
    brood: int
    teams: list[Team]
    hyperparameters: dict[int, dict[str, Any]]
    rounds: dict[int, int]  # member -> round of its last report that was answered
    ended: set[int]
    inbox: Inbox
    writer: checkpoints.Writer
    failed: set[int] = field(default_factory=set)
    # member -> state that it reported with, while there is no answer
    asked: dict[int, SavedState] = field(default_factory=dict)
    # member -> why it could not go on from what it was given, until it is reported
    errors: dict[int, str] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)

    @property
    def members(self) -> dict[int, Member]:
        return {number: member for team in self.teams for number, member in team.members.items()}

    def take(self) -> bool:
        """Train all members to their end; say whether the run goes on to its tests."""
        while any(self.left(team) for team in self.teams):
            if self.inbox.closed:
                self.inbox.wait()
                return False
            trained = [self.turn(team) for team in self.teams if self.left(team)]
            if not any(trained) and any(self.left(team) for team in self.teams):
                self.inbox.wait()
            self.drop_ended()
        return True

    def left(self, team: Team) -> set[int]:
        return team.members.keys() - self.ended

    def drop_ended(self) -> None:
        """Let those of a stack that train no more leave it."""
        for place, team in enumerate(self.teams):
            gone = team.members.keys() & self.ended
            if team.stack is not None and gone and self.left(team):
                self.teams[place] = team.without(gone)
                self.teams += [Team({number: team.members[number]}) for number in gone]

    def turn(self, team: Team) -> bool:
        """Train to the team's next ready point and report; say whether there was anything to do."""
        self.follow(team)
        began, steps, sums = time.perf_counter(), 0, dict.fromkeys(team.members, 0.0)
        try:
            ahead = self.ahead(team)
            while ahead:
                piece = min(ahead, max(1, self.run.population.interval // LOOKS))
                for number, loss in team.step(piece).items():
                    sums[number] += piece * loss
                steps, ahead = steps + piece, ahead - piece
                if ahead and self.follow(team):
                    # an interval counts from the copy; a stack keeps its pace, but nobody passes the end
                    ahead = self.ahead(team) if team.stack is None else min(ahead, self.ahead(team))
                    began, steps, sums = time.perf_counter(), 0, dict.fromkeys(team.members, 0.0)
            silent = team.members.keys() <= self.asked.keys() | self.ended
            losses = {number: total / max(steps, 1) for number, total in sums.items()}
            rows = {} if silent else team.rows(losses, time.perf_counter() - began)
        except (Exhausted, CompileError):
            raise
        except Exception:  # whatever a member's own code raises concerns its team alone
            rows = team.failure()
        self.report(team, rows)
        return steps > 0 or bool(rows)

    def ahead(self, team: Team) -> int:
        """Return how many steps the team trains to its ready point: none if it has to wait for an answer."""
        able = [team.members[number] for number in self.left(team) - self.failed]
        to_end = [self.run.training.steps - member.trained for member in able]
        return team.reach(max(0, min([self.run.population.interval, *to_end]))) if able else 0

    def report(self, team: Team, rows: Mapping[int, Row]) -> None:
        """Send the rows of those that wait for no answer, and publish what they reported with."""
        told: list[Row] = []
        states: dict[int, SavedState] = {}
        ends = team.ends(self.failed)
        for number in sorted((self.left(team) - self.asked.keys()) & rows.keys()):
            member = team.members[number]
            # others copy the state that is also saved
            with self.spent.on(CHECKPOINT, [number]):
                state = self.asked[number] = taken(member)
            error = self.errors.pop(number, WEIGHTS_LOST if number in self.failed else "") or state.get(
                LOST, ""
            )
            row = failed_row(number, member, error) if error else rows[number]
            if row.failed:
                self.failed.add(number)
            # a member that came back from its file repeats a report that may have been answered
            if self.inbox.look(number) is None:
                told.append(
                    row._replace(
                        round=self.rounds[number] + 1,
                        step=trained_by(member),
                        brood=self.brood,
                        ended=ends.get(number, ()),
                    )
                )
                states |= {number: state} if number not in self.failed else {}
        if told:
            # a report says that the files of the member's round before are whole
            with self.spent.on(CHECKPOINT, [row.member for row in told]):
                self.writer.wait()
            told = [self.spent.added(row) for row in told]
            rounds = {row.member: row.round for row in told}
            mailbox.publish_states(self.actor, self.brood, Message(told), rounds, states)

    def follow(self, team: Team) -> bool:
        """Do what has been decided of a team's members since; say whether anybody copied."""
        found = [self.inbox.look(number) for number in sorted(team.members)]
        # after a restart the answer may be here before the report is sent again: leave it until then
        verdicts = [each for each in found if each is not None and (each.order or each.member in self.asked)]
        for verdict in verdicts:
            self.inbox.take(verdict.member)
            self.obey(team.members[verdict.member], verdict)
        return any(verdict.order for verdict in verdicts)

    def obey(self, member: Member, verdict: Verdict) -> None:
        number = verdict.member
        self.rounds[number] = verdict.round
        state = self.asked.pop(number, None)
        if verdict.order is not None:
            self.failed.discard(number)
            self.hyperparameters[number] = verdict.order.hyperparameters
            with self.spent.on(EXPLOIT, [number]):
                state = self.donated(verdict)
                error = loaded(member, state, verdict.order.hyperparameters) if state else ""
            if state is None:
                self.failed.add(number)
                return
            if error:
                self.failed.add(number)
                self.errors[number], state = error, lost_state(error)
        if verdict.ended:
            self.ended.add(number)
        assert state is not None
        standing: Standing = {"hyperparameters": self.hyperparameters[number], "ended": verdict.ended}
        with self.spent.on(CHECKPOINT, [number]):
            self.writer.save(verdict.round, number, {**state, STANDING: standing})

    def donated(self, verdict: Verdict) -> SavedState | None:
        """Return what the donor reported with; from its file if the published one is lost, else None."""
        state: SavedState | None = mailbox.fetch_state(verdict.weights)
        if state is None and verdict.source is not None:
            with contextlib.suppress(FileNotFoundError):  # not yet written, or kept no longer
                state = checkpoints.load_member(self.store, *verdict.source)
                state.pop(STANDING)
        return state


def train_freely(
    run: Run, store: Store, actor: Any, brood: int, starts: Mapping[int, dict[str, Any]]
) -> tuple[dict[int, Member], set[int]] | None:
    """Train members to their ends; return them and who has failed, or None if the run ends before.

    Each goes on from its own newest file, also where its brood lost a worker: what it had been told of that
    round is in the file, and what it was told later is still in the mailbox.
    """
    rounds = {number: checkpoints.newest_round(store, number) for number in starts}
    states = {
        number: checkpoints.load_member(store, round_, number) for number, round_ in rounds.items() if round_
    }
    standings: dict[int, Standing] = {number: state.pop(STANDING) for number, state in states.items()}
    given = {number: standing["hyperparameters"] for number, standing in standings.items()}
    hyperparameters = {**starts, **given}
    members = build_members(run, hyperparameters, begun=begun_with(run))
    if not any(rounds.values()):
        tell_shapes(run, members, actor, brood)
    found_errors = {
        number: loaded(members[number], state, hyperparameters[number]) for number, state in states.items()
    }
    errors = {number: error for number, error in found_errors.items() if error}
    ended = {number for number, standing in standings.items() if standing["ended"]}
    found, writer = teams(members, run.cluster.stack, run.cluster.compile), checkpoints.Writer(store)
    inbox = Inbox(actor, rounds)
    turns = Turns(run, store, actor, brood, found, hyperparameters, rounds, ended, inbox, writer, set(errors))
    turns.errors |= errors
    if not turns.take():
        return None
    writer.wait()
    return members, turns.failed
