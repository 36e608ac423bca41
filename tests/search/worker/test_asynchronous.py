"""Members that wait for nobody: decided as their reports arrive, and consistent when a run or a worker dies."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.cluster import checkpoints, mailbox
from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.policies.population import Report
from shoal.policies.rules import LEFT_ALONE
from shoal.search.config.run import Run
from shoal.search.errors import Exhausted
from shoal.search.load import load_run
from shoal.search.messages import Message, OnTestRows, Row, Verdict
from shoal.search.records.last import last_rows
from shoal.search.records.lineage import ancestry, read_lineage
from shoal.search.records.tables import METRICS
from shoal.search.worker import asynchronous as turns
from shoal.search.worker.asynchronous import train_freely
from shoal.trainables.toy import Toy
from tests.helpers.directories import open_conductor
from tests.helpers.members import language
from tests.helpers.runs import TOY, shoal, start, wait_for_round
from tests.search.driver.test_conductor import Watches

STEPS, MEMBERS = 40, 4
CHANGES = (
    "population.mode=asynchronous",
    f"training.steps={STEPS}",
    "cluster={broods: 1, workers_per_brood: 2}",
)


class Uneven(Toy):
    """A toy that takes 20 times as long where it is odd."""

    def __init__(self, hyperparameters: dict[str, Any], slow: bool):
        super().__init__(hyperparameters)
        self.pause = 0.02 if slow else 0.001

    def train(self, steps: int) -> float:
        time.sleep(self.pause * steps)
        return super().train(steps)


class Killed(BaseException):
    """What no `except Exception` holds up."""


class Post:
    """The mailbox and Ray's object store, in one process; it may kill a worker at one of its messages."""

    def __init__(self, run: Run, monkeypatch, kill: dict[int, int] | None = None):
        self.conductor = open_conductor(run, Store(run.directory), Watches())
        self.conductor.give_orders = self.give
        self.changed = threading.Condition(threading.RLock())
        self.verdicts: dict[int, Any] = {}
        self.states: dict[tuple[int, int], Any] = {}
        self.kill = kill or {}  # worker -> number of its message
        for name, call in (
            ("publish_states", self.publish),
            ("send_report", self.tell),
            ("next_verdicts", self.next),
            ("fetch_state", lambda kept: kept),
        ):
            monkeypatch.setattr(mailbox, name, call)

    def publish(
        self, actor: Any, brood: int, message: Message, rounds: dict[int, int], states: dict[int, Any]
    ) -> None:
        worker = message.rows[0].member % 2
        with self.changed:
            self.kill[worker] = self.kill.get(worker, 0) - 1
            if self.kill[worker] == 0:
                raise Killed
            self.states |= {(round_, member): states.get(member) for member, round_ in rounds.items()}
            self.conductor.receive(message)

    def tell(self, actor: Any, brood: int, message: Message) -> None:
        with self.changed:
            self.conductor.receive(message)

    def give(self, verdicts: list[Verdict] | None) -> None:
        for verdict in verdicts or []:
            self.verdicts[verdict.member] = verdict, self.states.get(verdict.source)
        self.changed.notify_all()

    def next(self, actor: Any, known: dict[int, int]) -> list[Any]:
        def found() -> list[Any]:
            given = self.verdicts.values()
            return [each for each in given if each[0].round > known.get(each[0].member, 10**9)]

        with self.changed:
            self.changed.wait_for(found)
            return found()

    def train(self, run: Run, workers_: tuple[int, ...] = (0, 1)) -> set[int]:
        """Train these workers' members in threads; return the workers that were killed."""
        killed = set()

        def host(worker: int) -> None:
            starts = {
                number: known.hyperparameters
                for number, known in enumerate(self.conductor.state)
                if number % 2 == worker
            }
            try:
                members, _ = train_freely(run, Store(run.directory), None, 0, starts)
            except Killed:
                killed.add(worker)
                return
            with self.changed:
                self.conductor.receive(Message(tests={number: OnTestRows() for number in members}))

        threads = [threading.Thread(target=host, args=(worker,)) for worker in workers_]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=240)
            assert not thread.is_alive()
        return killed


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr(
        turns,
        "build_members",
        lambda run, given, begun=None: {
            number: Uneven(values, bool(number % 2)) for number, values in given.items()
        },
    )
    return load_run(TOY, [f"directory={tmp_path}", *CHANGES])


def check_weights(run: Run) -> None:
    """Every member has come to the run's end, as its lineage says."""
    final, _ = last_rows(run, Store(run.directory))
    assert {last.step for last in final.values()} == {STEPS}
    check_lineage(run)


def check_lineage(run: Run) -> None:
    """Each member's last weights are a toy's trained along its lineage, and every round is there once."""
    store = Store(run.directory)
    rows, events = store.read_table(METRICS).to_pylist(), read_lineage(store)
    final, _ = last_rows(run, store)
    for member, last in final.items():
        own = sorted(row["round"] for row in rows if row["member"] == member)
        assert own == list(range(1, last.round + 1))
        path = ancestry(events, member, round=last.round)
        toy = Toy(path[0].hyperparameters)
        for segment in path:
            toy.hyperparameters = segment.hyperparameters
            assert toy.trained == segment.from_step
            toy.train((last.step if segment.to_step is None else segment.to_step) - segment.from_step)
        found = checkpoints.load_member(store, last.round, member)["weights"]["place"]
        assert np.allclose(found, toy.place, rtol=0, atol=1e-15)


def test_a_slow_member_does_not_hold_up_the_others(run, monkeypatch) -> None:
    post = Post(run, monkeypatch)
    assert post.train(run) == set() and post.conductor.finished
    rows = sorted(Store(run.directory).read_table(METRICS).to_pylist(), key=lambda row: row["arrival"])
    done = [place for place, row in enumerate(rows) if row["step"] == STEPS and row["member"] % 2 == 0]
    slow = [row["round"] for row in rows[: max(done)] if row["member"] % 2]
    assert len(done) == 2 and max(slow, default=0) <= 3
    check_weights(run)


def test_decisions_are_those_of_the_pure_policy_in_order_of_arrival(run, monkeypatch) -> None:
    Post(run, monkeypatch).train(run)
    store = Store(run.directory)
    rows = sorted(store.read_table(METRICS).to_pylist(), key=lambda row: row["arrival"])
    state, told, decided = population.start(run.space(), MEMBERS, run.seed), {}, []
    for row in rows:
        report = Report(row["member"], row["step"], row["score"])
        told[row["member"]] = row
        rules = run.rules() if row["step"] < STEPS else LEFT_ALONE
        state, orders = population.decide(rules, run.space(), state, [report], run.seed)
        decided += [
            (row["round"], row["member"], order.donor, told[order.donor]["round"], order.hyperparameters)
            for order in orders
        ]
    copies = [event for event in read_lineage(store) if event.parent is not None]
    recorded = [(each.round, each.member, each.parent, each.parent_round, each.after) for each in copies]
    assert sorted(recorded, key=str) == sorted(decided, key=str) and decided


@pytest.mark.parametrize("messages", [(3, 2), (8, 3), (5, 1)])
def test_a_run_that_dies_goes_on_from_what_is_whole(run, monkeypatch, messages: tuple[int, int]) -> None:
    first = Post(run, monkeypatch, dict(enumerate(messages)))
    assert first.train(run) == {0, 1}
    again = Post(run, monkeypatch)
    reached = again.conductor.arrived
    assert again.train(run) == set() and again.conductor.finished and again.conductor.arrived > reached
    check_weights(run)
    saved = json.loads(max(Path(run.directory).glob("checkpoints/*/decisions.json")).read_text())
    assert saved["ended"] == list(range(MEMBERS)) and set(saved["saved"]) == {
        row.round for row in last_rows(run, Store(run.directory))[0].values()
    }


def test_a_brood_that_dies_comes_back_while_the_others_go_on(run, monkeypatch) -> None:
    post = Post(run, monkeypatch, {0: 6})
    assert post.train(run) == {0} and not post.conductor.finished
    assert post.train(run, (0,)) == set() and post.conductor.finished
    check_weights(run)


def test_lost_weights_are_taken_from_the_donors_file_of_that_round_or_not_at_all(run, monkeypatch) -> None:
    monkeypatch.setattr(mailbox, "fetch_state", lambda reference: None)
    store = Store(run.directory)
    for round_ in (2, 4):  # the file of round 3 is kept no longer
        state = {"weights": np.full(2, round_), turns.STANDING: {"ended": False}}
        checkpoints.save_member(store, round_, 0, state)
    mine = turns.Turns(run, store, None, 0, [], {}, {}, set(), None, None)

    def donated(round_: int) -> Any:
        return mine.donated(Verdict(1, 7, None, (round_, 0), False, []))

    found = donated(2)
    assert found.keys() == {"weights"} and (found["weights"] == 2).all()
    assert donated(3) is None and donated(5) is None


def test_a_member_that_fails_is_replaced_and_the_last_to_fail_end_the_run(run, monkeypatch) -> None:
    class Broken(Toy):
        def train(self, steps: int) -> float:
            raise ArithmeticError("three is not a number")

    made = {0: Toy, 1: Broken, 2: Toy, 3: Toy}
    monkeypatch.setattr(
        turns,
        "build_members",
        lambda run, given, begun=None: {number: made[number](values) for number, values in given.items()},
    )
    post = Post(run, monkeypatch)
    post.train(run)
    assert post.conductor.finished and {member for member, _ in post.conductor.watcher.failures} == {1}
    assert all(row.step == STEPS for number, row in post.conductor.last.items() if number != 1)
    assert "copy" in [event.event for event in read_lineage(Store(run.directory)) if event.member == 1]
    made |= dict.fromkeys(range(MEMBERS), Broken)
    (Path(run.directory) / "all").mkdir()
    gone = Post(run.model_copy(update={"directory": f"{run.directory}/all"}), monkeypatch)
    with gone.changed:
        gone.conductor.receive(Message([Row(number, round=1, step=4) for number in range(MEMBERS)]))
    assert "all members have failed by step 4" in gone.conductor.failure


@pytest.mark.parametrize("stack", [True, False])
def test_networks_in_a_stack_or_alone_end_as_their_lineage_says(tmp_path, monkeypatch, stack: bool) -> None:
    def make(number: int, given: dict[str, Any]):
        return language(number, learning_rate=0.05 * (given["h0"] + 0.1))

    class Rated(type(make(0, {"h0": 0.5}))):
        """Takes h0 for its rate, as the toy's file names it."""

        def adopt(self, hyperparameters: dict[str, Any]) -> None:
            rate = hyperparameters.get("learning_rate", 0.05 * (hyperparameters.get("h0", 0.0) + 0.1))
            super().adopt({"learning_rate": rate})

    def build(run: Run, given: dict[int, dict[str, Any]], begun: Any = None):
        made = {number: make(number, values) for number, values in given.items()}
        for member in made.values():
            member.__class__ = Rated
        return made

    monkeypatch.setattr(turns, "build_members", build)
    run = load_run(TOY, [f"directory={tmp_path}", *CHANGES, f"cluster.stack={stack}"])
    assert Post(run, monkeypatch).train(run) == set()
    store = Store(run.directory)
    events, final = read_lineage(store), last_rows(run, store)[0]
    assert {row.stacked for row in final.values()} == {stack}
    assert any(event.parent is not None for event in events)
    for number, row in final.items():
        path = ancestry(events, number, round=row.round)
        again = build(run, {path[0].member: path[0].hyperparameters})[path[0].member]
        for segment in path:
            again.adopt(segment.hyperparameters)
            # a copy of weights that had come to the end trains no more
            if left := (STEPS if segment.to_step is None else segment.to_step) - again.trained:
                again.train(left)
        found = checkpoints.load_member(store, row.round, number)
        assert found["trained"] == again.trained == STEPS
        weights = again.state()["weights"]
        assert all(np.allclose(found["weights"][name], weights[name], rtol=0, atol=2e-4) for name in weights)


OWN = """
import time
from ray import train
from shoal.trainables.toy import Toy

class Uneven(Toy):
    def __init__(self, recipe, hyperparameters, seed, device):
        super().__init__(hyperparameters)
        self.pause = 0.1 if train.get_context().get_world_rank() else 0.02

    def train(self, steps):
        time.sleep(self.pause * steps)
        return super().train(steps)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_run_on_ray_resumes(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "uneven.py").write_text(OWN)
    text = Path(TOY).read_text().replace("trainable: toy", "trainable: uneven:Uneven")
    (tmp_path / "uneven.yaml").write_text(text)
    place = tmp_path / "killed"
    process = start("run", "uneven.yaml", f"directory={place}", *CHANGES, folder=tmp_path)
    wait_for_round(place, 4, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)
    rows = Store(str(place)).read_table(METRICS).to_pylist()
    # on a busy machine the slow worker may not have begun
    rounds = [max((row["round"] for row in rows if row["member"] % 2 == each), default=0) for each in (0, 1)]
    assert rounds[0] > 2 * rounds[1]
    shoal("resume", str(place), folder=tmp_path)
    check_weights(load_run(str(place / "run.yaml")))


class Ending(Toy):
    def train(self, steps: int) -> float:
        raise Exhausted("code read to the end")


def test_rows_that_end_are_the_end_of_the_run_and_no_members_failure(run, monkeypatch) -> None:
    Post(run, monkeypatch)
    monkeypatch.setattr(
        turns, "build_members", lambda run, starts, begun=None: {each: Ending(starts[each]) for each in starts}
    )
    starts = {0: {"h0": 0.5, "h1": 0.5}}
    with pytest.raises(Exhausted, match="code read to the end"):
        train_freely(run, Store(run.directory), None, 0, starts)


class Seldom(Uneven):
    """A toy that is scored at every other ready point."""

    known = float("nan")

    @property
    def scored(self) -> bool:
        return self.trained % 8 == 0

    def evaluate(self, split: str = "validation") -> tuple[float, dict[str, float]]:
        if self.scored:
            self.known = self.score()
        return self.known, {}


def test_members_copy_only_where_they_are_scored(run, monkeypatch) -> None:
    monkeypatch.setattr(
        turns,
        "build_members",
        lambda run, given, begun=None: {number: Seldom(values, slow=True) for number, values in given.items()},
    )
    run = load_run(TOY, [f"directory={run.directory}", *CHANGES, "population.exploit.fraction=0.5"])
    post = Post(run, monkeypatch)
    assert post.train(run) == set() and post.conductor.finished
    rows = Store(run.directory).read_table(METRICS).to_pylist()
    scored = {(row["member"], row["round"]): row["scored"] for row in rows}
    assert set(scored.values()) == {True, False}
    copies = [event for event in read_lineage(Store(run.directory)) if event.event == "copy"]
    assert copies and all(scored[event.member, event.round] for event in copies)
    assert not list(Path(run.directory).glob("failures/*")), "a member without a score has not failed"


def test_what_copies_and_checkpoints_take_is_recorded(run, monkeypatch) -> None:
    Post(run, monkeypatch).train(run)
    store = Store(run.directory)
    rows = store.read_table(METRICS).to_pylist()
    assert all(row["checkpoint_seconds"] > 0 for row in rows)
    copied = {(event.member, event.round) for event in read_lineage(store) if event.event == "copy"}
    after = [row for row in rows if (row["member"], row["round"] - 1) in copied]
    assert after and all(row["exploit_seconds"] > 0 for row in after)
    assert all(not row["exploit_seconds"] for row in rows if row not in after)


def test_one_checkpoint_is_left_where_one_is_kept(run, monkeypatch) -> None:
    post = Post(
        run.model_copy(update={"checkpoint": run.checkpoint.model_copy(update={"keep": 1})}), monkeypatch
    )
    post.train(run)
    post.conductor.keep_last()
    left = sorted(path.name for path in Path(run.directory).glob("checkpoints/*/*") if path.is_file())
    assert left == ["decisions.json", *(f"member-{member:05d}.safetensors" for member in range(MEMBERS))]
    check_weights(run)


def test_shapes_are_told_where_other_workers_have_members_too(run, monkeypatch) -> None:
    from shoal.search.worker import alike

    told = []
    monkeypatch.setattr(alike.mailbox, "send_report", lambda actor, brood, message: told.append(message))
    alike.tell_shapes(run, {0: language(0), 2: language(1)}, None, 0)
    assert [list(message.shapes) for message in told] == [[0]]
    assert told[0].shapes[0]["embedding.weight"] == (31, 16)
    one = run.model_copy(update={"cluster": run.cluster.model_copy(update={"workers_per_brood": 1})})
    alike.tell_shapes(one, {0: language(0)}, None, 0)
    assert len(told) == 1
