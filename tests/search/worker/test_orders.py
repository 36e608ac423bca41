import math
from pathlib import Path

import pytest

from shoal.cluster import mailbox
from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.policies.population import Order
from shoal.search.config.run import Run
from shoal.search.driver.conductor import Conductor
from shoal.search.load import load_run
from shoal.search.messages import Message, RoundOrders, Row
from shoal.search.worker.orders import MOST_UNANSWERED, FromConductor, OwnDecision, way_to_orders

TOY = str(Path(__file__).parents[3] / "examples/toy.yaml")
SCORES = [[1.0, 0.5, 3.0, 2.0], [1.5, 2.5, math.nan, 2.0], [0.1, 0.2, 0.3, 0.4], [4.0, 1.0, 2.0, 3.0]]


class Silent:
    def say(self, line) -> None: ...

    def recorded(self, part) -> None: ...

    def failed(self, row, trace) -> None: ...

    def round(self, round_, rows, orders) -> None: ...


class Wire:
    """The way from a worker to a conductor and back, without Ray: answers are there at once."""

    def __init__(self, monkeypatch, run: Run, state: population.PopulationState):
        self.given: dict[int, RoundOrders | None] = {}
        self.sent: list[Message] = []
        place = Store(run.directory)
        self.conductor = Conductor(
            run, place, run.space(), run.rules(), state, self.given.__setitem__, Silent()
        )
        self.waited: list[int] = []  # rounds whose answers were waited for
        monkeypatch.setattr(mailbox, "report_round", self.report)
        monkeypatch.setattr(mailbox, "goes_on", lambda round_: self.answer(round_) is not None)
        monkeypatch.setattr(mailbox, "next_orders", lambda *said: self.answer(self.report(*said)))
        monkeypatch.setattr(mailbox, "decided", lambda actor: max(self.given, default=None))

    def report(self, actor, brood: int, round_: int, message: Message) -> int:
        self.sent.append(message)
        self.conductor.receive(message)
        return round_

    def answer(self, round_: int) -> RoundOrders | None:
        self.waited.append(round_)
        return self.given[round_]


@pytest.fixture
def run(tmp_path) -> Run:
    return load_run(TOY, [f"directory={tmp_path}", "cluster.broods=1", "cluster.workers_per_brood=1"])


@pytest.fixture
def wire(run, monkeypatch) -> Wire:
    return Wire(monkeypatch, run, population.start(run.space(), run.population.members, run.seed))


def reports(run: Run, round_: int, scores: list[float]) -> Message:
    step = run.population.interval * round_
    return Message([Row(member, round_, step, score=score) for member, score in enumerate(scores)])


def told(wire: Wire, run: Run, told_by_others: bool) -> list[list[Order]]:
    way = way_to_orders(run, wire.conductor.state, 0, None, 0, told_by_others)
    assert isinstance(way, FromConductor if told_by_others else OwnDecision)
    found = [way.next(round_, reports(run, round_, scores)) for round_, scores in enumerate(SCORES, 1)]
    assert way.settle()
    wire.conductor.wait()
    return found


def test_a_worker_with_all_members_decides_as_the_conductor_would(run, tmp_path, monkeypatch) -> None:
    start = population.start(run.space(), run.population.members, run.seed)
    here = Wire(monkeypatch, run, start)
    own = told(here, run, told_by_others=False)
    elsewhere = run.model_copy(update={"directory": str(tmp_path / "other")})
    there = Wire(monkeypatch, elsewhere, start)
    assert own == told(there, elsewhere, told_by_others=True)
    assert any(own), "nobody copied, so nothing was compared"
    # the conductor goes on from what the worker decided: its state is the same, and what it told the others
    assert here.conductor.state == there.conductor.state
    assert here.given == there.given
    assert here.conductor.exploits == there.conductor.exploits > 0


def test_answers_are_waited_for_some_rounds_later(wire, run) -> None:
    way = way_to_orders(run, wire.conductor.state, 0, None, 0, told=False)
    for round_ in range(1, MOST_UNANSWERED + 1):
        assert way.next(round_, reports(run, round_, SCORES[0])) is not None
    assert wire.waited == []
    way.next(MOST_UNANSWERED + 1, reports(run, MOST_UNANSWERED + 1, SCORES[0]))
    assert wire.waited == [1]
    way.settle()
    assert wire.waited == list(range(1, MOST_UNANSWERED + 2))


def test_messages_that_overtake_one_another_are_taken_in_their_order(run, tmp_path, wire) -> None:
    way = way_to_orders(run, wire.conductor.state, 0, None, 0, told=False)
    for round_, scores in enumerate(SCORES, 1):
        way.next(round_, reports(run, round_, scores))
    late = Conductor(run, Store(str(tmp_path / "late")), run.space(), run.rules(), way.state, print, Silent())
    late.give_orders, given = (lambda round_, orders: given.update({round_: orders})), {}
    for place in (1, 3, 0, 2):
        late.receive(wire.sent[place])
    late.wait()
    assert list(given) == [1, 2, 3, 4]
    assert given == wire.given


def test_the_conductor_ends_the_run_of_a_worker_that_decides_itself(wire, run) -> None:
    way = way_to_orders(run, wire.conductor.state, 0, None, 0, told=False)
    way.next(1, reports(run, 1, SCORES[0]))
    wire.given[1] = None  # as when another driver has taken the run over
    found = [way.next(round_, reports(run, round_, SCORES[1])) for round_ in range(2, MOST_UNANSWERED + 2)]
    assert found[-1] is None
    assert None not in found[:-1]


def test_where_all_have_failed_the_conductor_says_so(wire, run) -> None:
    way = way_to_orders(run, wire.conductor.state, 0, None, 0, told=False)
    assert way.next(1, reports(run, 1, [math.nan] * 4)) is None
    assert "all members have failed" in wire.conductor.failure


def test_where_all_fail_nothing_that_was_reported_before_is_overtaken(wire, run) -> None:
    way = way_to_orders(run, wire.conductor.state, 0, None, 0, told=False)
    way.next(1, reports(run, 1, SCORES[0]))
    way.next(2, reports(run, 2, SCORES[1]))
    assert wire.waited == []
    assert way.next(3, reports(run, 3, [math.nan] * 4)) is None
    assert wire.waited == [1, 2, 3]


def test_a_worker_that_goes_waits_until_the_conductor_knows(wire, run) -> None:
    way = way_to_orders(run, wire.conductor.state, 0, None, 0, told=False)
    assert way.next(1, reports(run, 1, SCORES[0])._replace(leaving=True)) is not None
    assert wire.waited == [1]


def test_who_comes_back_behind_the_last_decision_is_told_what_was_decided(wire, run) -> None:
    start = wire.conductor.state
    told(wire, run, told_by_others=False)
    assert isinstance(way_to_orders(run, wire.conductor.state, 4, None, 0, told=False), OwnDecision)
    back = way_to_orders(run, start, 2, None, 0, told=False)
    assert isinstance(back, FromConductor)
    # other scores than before, as on a GPU: what was decided holds
    assert back.next(3, reports(run, 3, [9.0, 8.0, 7.0, 6.0])) == wire.given[3].orders


@pytest.mark.parametrize("change", ["cluster.broods=2", "cluster.workers_per_brood=2"])
def test_members_on_several_workers_are_decided_by_the_conductor(tmp_path, wire, change: str) -> None:
    one = ["cluster.broods=1", "cluster.workers_per_brood=1"]
    several = load_run(TOY, [f"directory={tmp_path}", *one, change])
    assert isinstance(way_to_orders(several, wire.conductor.state, 0, None, 0, told=False), FromConductor)


@pytest.mark.parametrize("told_by_others", [False, True])
def test_a_worker_hears_that_rows_have_ended(wire, run, told_by_others: bool) -> None:
    way = way_to_orders(run, wire.conductor.state, 0, None, 0, told_by_others)
    assert way.next(1, reports(run, 1, SCORES[0])) and not way.over
    rows = reports(run, 2, SCORES[0]).rows
    last = Message([row._replace(ended=["docs"] if row.member == 2 else []) for row in rows])
    assert way.next(2, last) == [] and way.over
    assert way.settle()
    assert wire.conductor.is_last(2) and wire.conductor.read_out == ["docs"]
