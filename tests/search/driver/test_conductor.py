import errno
import math
from pathlib import Path

import pytest

from shoal.cluster import checkpoints
from shoal.cluster.storage import CannotWrite, Store
from shoal.policies import population
from shoal.search.driver.conductor import Conductor
from shoal.search.driver.population import early_end
from shoal.search.driver.scheduler import PopulationScheduler
from shoal.search.load import load_run
from shoal.search.messages import Message, OnTestRows, RoundOrders, Row
from shoal.search.records import tables
from shoal.search.records.whole import WholeRound
from tests.helpers.directories import open_conductor

TOY = str(Path(__file__).parents[3] / "examples/toy.yaml")


class Watches:
    def __init__(self) -> None:
        self.failures: list[tuple[int, str]] = []

    def say(self, line) -> None: ...

    def recorded(self, part) -> None: ...

    def failed(self, row, trace) -> None:
        self.failures.append((row.member, trace))

    def round(self, round_, rows, orders) -> None: ...


@pytest.fixture
def conductor(tmp_path) -> Conductor:
    run = load_run(TOY, [f"directory={tmp_path}", "population.replacements=1"])
    state = population.start(run.space(), run.population.members, run.seed)
    given: dict[int, RoundOrders | None] = {}
    made = Conductor(run, Store(str(tmp_path)), run.space(), run.rules(), state, given.__setitem__, Watches())
    made.given = given
    return made


def reports(round_: int, scores: list[float], **errors: str) -> Message:
    return Message(
        [
            Row(member, round_, 4 * round_, score=score, error=errors.get(f"member{member}", ""))
            for member, score in enumerate(scores)
        ]
    )


def test_a_failed_member_is_told_once_and_replaced(conductor, tmp_path) -> None:
    conductor.receive(reports(1, [1.0, math.nan, 3.0, 2.0], member1="Traceback\nValueError: no"))
    assert conductor.watcher.failures == [(1, "Traceback\nValueError: no")]
    assert 1 in [order.member for order in conductor.given[1].orders]
    kept = tmp_path / "failures/round-000001-member-00001.txt"
    assert kept.read_text() == "Traceback\nValueError: no"
    # it may be replaced once: now it stays as it is, without a word of its own
    conductor.receive(reports(2, [1.0, 0.5, 3.0, 2.0]))
    conductor.receive(reports(3, [1.0, math.nan, 3.0, 2.0]))
    conductor.receive(reports(4, [1.0, math.nan, 3.0, 2.0]))
    assert [member for member, _ in conductor.watcher.failures] == [1, 1]
    assert "diverged" in conductor.watcher.failures[-1][1]
    assert all(1 not in [order.member for order in conductor.given[round_].orders] for round_ in (3, 4))


def test_when_all_have_failed_the_run_ends_with_the_last_reason(conductor) -> None:
    conductor.receive(reports(1, [math.nan] * 4, member3="ValueError: no such file"))
    assert conductor.given == {1: None}
    assert "all members have failed by step 4" in conductor.failure
    assert conductor.failure.endswith("ValueError: no such file")


def test_a_worker_that_is_told_to_go_makes_its_round_a_checkpoint(conductor, tmp_path) -> None:
    settings = conductor.run.checkpoint.model_copy(update={"every": 10})
    conductor.run = conductor.run.model_copy(update={"checkpoint": settings})
    for round_ in range(1, 5):
        conductor.receive(reports(round_, [1.0, 0.5, 3.0, 2.0])._replace(leaving=round_ == 3))
        conductor.wait()
    assert [path.parent.name for path in tmp_path.glob("checkpoints/*/decisions.json")] == ["round-000003"]


def test_rows_that_end_end_the_run_with_the_round_in_which_they_do(conductor, tmp_path) -> None:
    tables.write_starts(conductor.store, conductor.state)
    settings = conductor.run.checkpoint.model_copy(update={"every": 10})
    conductor.run = conductor.run.model_copy(update={"checkpoint": settings})
    conductor.receive(reports(1, [1.0, 0.5, 3.0, 2.0]))
    last = reports(2, [1.0, 0.5, 3.0, 2.0])
    conductor.receive(Message([row._replace(step=7, ended=["docs"]) for row in last.rows]))
    conductor.wait()
    # nobody copies in the last round, and its checkpoint is written whatever is due
    assert conductor.given[1].orders and conductor.given[2] == RoundOrders([], over=True)
    assert [path.parent.name for path in tmp_path.glob("checkpoints/*/decisions.json")] == ["round-000002"]
    assert not conductor.finished
    tests = Message(tests={member: OnTestRows({"docs": 1.0}) for member in range(4)})
    conductor.receive(tests)
    assert conductor.finished
    assert early_end(conductor) == (
        "the rows ended at step 7 of 200: docs read to the end (data.exhausted: repeat)"
    )
    # a driver that begins again with this checkpoint knows it
    for member in range(4):
        checkpoints.save_member(Store(str(tmp_path)), 2, member, {})
    again = open_conductor(conductor.run, Store(str(tmp_path)), Watches())
    assert again.read_out == ["docs"] and again.is_last(again.round)
    again.receive(tests)
    assert again.finished


def test_a_record_that_cannot_be_written_ends_the_run_and_is_named(conductor, monkeypatch) -> None:
    def full(name: str, content: bytes | str) -> None:
        raise CannotWrite(f"/run/{name}", OSError(errno.ENOSPC, "no space"))

    monkeypatch.setattr(conductor.store, "write", full)
    for round_ in (1, 2):
        told = {"messages": [reports(round_, [1.0, 2.0, 3.0, 4.0])]}
        PopulationScheduler(conductor).on_trial_result(None, None, told)
    assert conductor.given[2] is None
    assert str(conductor.broken) == (
        "/run/metrics.parquet/part-000001.parquet cannot be written: No space left on device."
    )


def test_a_score_that_is_reached_makes_the_round_the_last(tmp_path) -> None:
    run = load_run(TOY, [f"directory={tmp_path}", "stop.score=2.5"])
    state = population.start(run.space(), run.population.members, run.seed)
    given: dict[int, RoundOrders | None] = {}
    store = Store(str(tmp_path))
    whole = WholeRound(0, state)
    conductor = Conductor.at(whole, run, store, given.__setitem__, Watches())
    tables.write_starts(store, state)
    conductor.receive(reports(1, [1.0, 0.5, 2.0, 2.0]))
    assert not given[1].over and given[1].orders
    conductor.receive(reports(2, [1.0, 0.5, 3.0, 2.0]))
    assert given[2].over and not given[2].orders, "nobody copies where nothing trains on"
    conductor.wait()
    said = "the run was stopped at step 8 of 200: a member has reached the score 3 (stop.score: 2.5)"
    assert early_end(conductor) == said
    kept = checkpoints.load_decisions(store, 2)["stopping"]
    assert kept["best"] == 3.0 and kept["reason"]


def test_a_round_without_new_scores_decides_nothing(conductor, tmp_path) -> None:
    """Nobody has been scored in round 1; in round 3 the scores are those of round 2."""
    tables.write_starts(conductor.store, conductor.state)

    def unscored(round_: int, scores: list[float]) -> Message:
        return Message([row._replace(scored=False) for row in reports(round_, scores).rows])

    conductor.receive(unscored(1, [math.nan] * 4))
    assert conductor.given[1].orders == [] and not conductor.failure and not conductor.watcher.failures
    conductor.receive(reports(2, [1.0, 0.5, 3.0, 2.0]))
    before, ranked = conductor.state, conductor.given[2].orders
    assert ranked
    conductor.receive(unscored(3, [1.0, 0.5, 3.0, 2.0]))
    assert conductor.given[3].orders == [] and conductor.best() == 2
    assert [known.decisions for known in conductor.state] == [3] * 4
    assert [known.score for known in conductor.state] == [known.score for known in before]
    conductor.wait()
    rows = conductor.store.read_table(tables.METRICS).to_pylist()
    assert [row["scored"] for row in sorted(rows, key=lambda row: row["round"])] == [False] * 4 + [True] * 4 + [
        False
    ] * 4
    # what a resumed run and the list of runs read
    assert [tables.row_of(row).scored for row in rows if row["round"] == 3] == [False] * 4


def test_members_of_other_shapes_on_two_workers_end_the_run(conductor) -> None:
    conductor.receive(Message(shapes={0: {"weight": (4, 8)}}))
    conductor.receive(Message(shapes={2: {"weight": (4, 8)}}))
    assert not conductor.failure
    conductor.receive(Message(shapes={1: {"weight": (4, 16)}}))
    assert conductor.given == {1: None}
    assert conductor.failure == (
        "hyperparameters: members 0 and 1 differ in the shape of weight ((4, 8) and (4, 16)), so neither could "
        "copy the other: let no hyperparameter shape the module, or set population.exploit: none"
    )
