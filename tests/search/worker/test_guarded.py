"""A member whose own code raises fails alone: at an exploit, a checkpoint, a resume, a test; never its run."""

import math
from typing import Any

import numpy as np
import pytest

from shoal.cluster import checkpoints, mailbox
from shoal.cluster.storage import Store
from shoal.policies.population import Order
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.messages import OnTestRows
from shoal.search.worker import asynchronous as turns
from shoal.search.worker import brood
from shoal.search.worker.alike import check_alike
from shoal.search.worker.guarded import LOST, loaded, lost_state, on_test_rows, taken, trained_by
from shoal.search.worker.teams import Team, teams
from shoal.trainables.member import SavedState
from shoal.trainables.toy import Toy
from tests.helpers.members import language
from tests.helpers.runs import TOY
from tests.search.worker.test_asynchronous import MEMBERS, Post

H = {"h0": 0.5, "h1": 0.5}


class Mute(Toy):
    """Gives no state."""

    def state(self) -> SavedState:
        raise OSError("the disk of my own is full")


class Deaf(Toy):
    """Takes no state."""

    def load(self, state: SavedState, hyperparameters: dict[str, Any]) -> None:
        raise KeyError("weights of mine")


class Untested(Toy):
    def evaluate(self, split: str = "validation"):
        if split == "test":
            raise FileNotFoundError("no test rows")
        return super().evaluate(split)


class Uncounted(Toy):
    @property
    def trained(self) -> int:
        raise AttributeError("trained")

    @trained.setter
    def trained(self, steps: int) -> None: ...


def test_each_call_of_a_members_own_code_gives_its_error_back() -> None:
    state = taken(Mute(H))
    assert "the disk of my own is full" in state[LOST] and state["weights"] == {}
    assert LOST not in taken(Toy(H))
    assert "weights of mine" in loaded(Deaf(H), Toy(H).state(), H) and loaded(Toy(H), Toy(H).state(), H) == ""
    assert loaded(Toy(H), lost_state("why"), H) == "why"
    found = on_test_rows(Untested(H))
    assert found.losses == {} and math.isnan(found.score) and "no test rows" in found.error
    assert on_test_rows(Toy(H)) == OnTestRows({}, Toy(H).score())
    assert trained_by(Uncounted(H)) == 0


def test_a_donor_without_a_state_and_its_receiver_fail_and_nobody_else() -> None:
    members = {0: Mute(H), 1: Toy(H), 2: Toy(H), 3: Toy(H)}
    found = [Team({number: member}) for number, member in members.items()]
    members[3].train(5)
    copies = brood.follow(None, 1, [Order(1, 0, H), Order(2, 3, H)], found)
    assert copies.keys() == {0, 1, 2} and copies[2] == "" and members[2].trained == 5
    assert "the disk of my own" in copies[0] and copies[1] == copies[0]
    failed = brood.after_copies({2: "", 3: ""}, copies)
    assert failed.keys() == {0, 1, 3}
    rows = {row.member: row for row in brood.train_teams(found, 5, failed)}
    assert [math.isfinite(rows[number].score) for number in range(4)] == [False, False, True, False]
    assert "the disk of my own" in rows[1].error and rows[3].error == ""


def test_a_donor_without_a_state_tells_a_receiver_elsewhere(monkeypatch) -> None:
    posted: dict[Any, Any] = {}
    monkeypatch.setattr(
        mailbox, "post_weights", lambda actor, key, state, way: posted.update({key: (state, way)})
    )
    monkeypatch.setattr(mailbox, "take_weights", lambda actor, key: posted[key][0])
    orders = [Order(1, 0, H)]
    assert "the disk" in brood.follow(None, 4, orders, [Team({0: Mute(H)})], direct=True)[0]
    assert posted[4, 0, 0][1] is False
    there = brood.follow(None, 4, orders, [Team({1: Toy(H)})])
    assert "the disk of my own is full" in there[1]


def test_a_receiver_that_cannot_take_a_state_fails_alone() -> None:
    members = {0: Toy(H), 1: Deaf(H)}
    found = [Team({number: member}) for number, member in members.items()]
    assert "weights of mine" in brood.follow(None, 1, [Order(1, 0, H)], found)[1]
    narrow, wide = language(1), language(2, batch=8)
    assert brood.follow(None, 1, [Order(1, 0, {})], teams({0: narrow, 1: wide}, True)) == {1: ""}


def test_who_may_raise_anything_in_a_stack_fails_with_its_receivers(monkeypatch) -> None:
    members = {number: language(number) for number in range(3)}
    (team,) = teams(members, True)
    monkeypatch.setattr(members[0].batches, "state", lambda: 1 / 0)
    copies = brood.follow(None, 1, [Order(2, 0, {})], [team])
    assert "ZeroDivisionError" in copies[2]


def test_a_signature_that_raises_leaves_a_member_alone(monkeypatch) -> None:
    members = {number: language(number) for number in range(3)}
    monkeypatch.setattr(members[1].batches, "next", lambda: 1 / 0)
    assert sorted(len(team.members) for team in teams(members, True)) == [1, 2]


def plain(path, *changes: str) -> Run:
    return load_run(TOY, [f"directory={path}", *changes])


def test_a_resumed_member_whose_state_was_lost_has_failed(tmp_path, monkeypatch) -> None:
    run, store = plain(tmp_path), Store(str(tmp_path))
    given = {number: Toy(H) for number in range(run.population.members)}
    for number, member in given.items():
        state = lost_state("not saved") if number == 2 else member.state()
        checkpoints.save_member(store, 3, number, state)
    from shoal.policies import population

    state = population.start(run.space(), run.population.members, run.seed)
    checkpoints.save_decisions(
        store, 3, {"round": 3, "members": population.to_plain(state)}, [3] * run.population.members
    )
    context = type("Context", (), {"get_world_rank": lambda _: 0, "get_world_size": lambda _: 1})()
    monkeypatch.setattr(brood.train, "get_context", lambda: context)
    monkeypatch.setattr(brood, "build_members", lambda *_, **__: given)
    resumed, _, _, failed = brood.begin(run, store, None, 0, state, None, None)
    assert resumed == 3 and failed == {2: "not saved"}


def test_members_that_could_never_copy_one_another_are_refused_at_once(tmp_path) -> None:
    run = plain(tmp_path)
    members = {0: language(0), 4: language(1), 8: Toy(H)}
    check_alike(run, members)
    from dataclasses import replace

    from tests.helpers.members import SHAPE

    members[4] = language(1, replace(SHAPE, width=8))
    with pytest.raises(InputError, match=r"members 0 and 4 differ in the shape of .* let no hyper"):
        check_alike(run, members)
    check_alike(plain(tmp_path, "population.exploit=none"), members)
    members[4] = language(1, replace(SHAPE, layers=3))
    with pytest.raises(InputError, match=r"blocks.2.attention.output.weight \(None and \(16, 16\)\)"):
        check_alike(run, members)


class Odd(Toy):
    """Its member of this number gives no state from its second report on, or takes none."""

    mute, deaf = -1, -1

    def __init__(self, hyperparameters: dict[str, Any], number: int):
        super().__init__(hyperparameters)
        self.number = number

    def state(self) -> SavedState:
        if self.number == self.mute and self.trained >= 16:
            raise OSError("mute")
        return super().state()

    def load(self, state: SavedState, hyperparameters: dict[str, Any]) -> None:
        if self.number == self.deaf:
            raise KeyError("deaf")
        super().load(state, hyperparameters)


@pytest.mark.parametrize("way", ["mute", "deaf"])
def test_an_asynchronous_run_goes_on_without_such_a_member(tmp_path, monkeypatch, way: str) -> None:
    monkeypatch.setattr(Odd, way, 1)

    def build(run: Run, given: dict[int, Any], begun: Any = None) -> dict[int, Odd]:
        return {number: Odd(values, number) for number, values in given.items()}

    monkeypatch.setattr(turns, "build_members", build)
    run = plain(
        tmp_path,
        "population.mode=asynchronous",
        "population.interval=8",
        f"population.members={MEMBERS}",
        "training.steps=40",
        "cluster={broods: 1, workers_per_brood: 2}",
    )
    post = Post(run, monkeypatch)
    assert post.train(run) == set() and post.conductor.finished
    last = {number: row.step for number, row in post.conductor.last.items()}
    assert len(last) == MEMBERS and all(step == 40 for number, step in last.items() if number != 1)
    if way == "mute":
        assert np.isnan(post.conductor.last[1].score)
        assert any("mute" in path.read_text() for path in tmp_path.glob("failures/*-member-00001.txt"))
