import math

import pytest

from shoal.cluster import mailbox
from shoal.policies.population import Order
from shoal.search.worker import brood
from shoal.search.worker.teams import Team, teams
from shoal.trainables.toy import Toy
from tests.helpers.members import language


class Post:
    """The mailbox of two workers, without Ray."""

    def __init__(self, monkeypatch):
        self.weights: dict[int, dict] = {}
        monkeypatch.setattr(
            mailbox, "post_weights", lambda e, key, state, direct: self.weights.update({key[1]: state})
        )
        monkeypatch.setattr(mailbox, "take_weights", lambda e, key: self.weights[key[1]])


def toys() -> dict[int, Toy]:
    found = {number: Toy({"h0": 0.1 * number, "h1": 0.5}) for number in range(4)}
    for number, toy in found.items():
        toy.train(5 * number)
    return found


def place(toy: Toy) -> list[float]:
    return toy.state()["weights"]["place"].tolist()


@pytest.mark.parametrize("split", [[{0, 1, 2, 3}], [{0, 2}, {1, 3}], [{2}, {1}, {0}, {3}]])
def test_a_chain_of_copies_takes_what_each_donor_reported_with(monkeypatch, split: list[set[int]]) -> None:
    before = {number: place(toy) for number, toy in toys().items()}
    h = {"h0": 0.9, "h1": 0.8}
    # 0 copies 1 while 1 copies 2: in any order and on any workers 0 must get the old weights of 1
    post, orders = Post(monkeypatch), [Order(1, 2, h), Order(0, 1, h)]
    members = toys()
    for here in sorted(split, key=lambda part: 2 not in part):
        missing = {donor for member, donor in ((1, 2), (0, 1)) if member in here} - here - set(post.weights)
        for donor in missing:
            post.weights[donor] = toys()[donor].state()
        given = brood.follow(
            None,
            1,
            [order for order in orders if {order.member, order.donor} & here],
            [Team({number: members[number]}) for number in here],
        )
        assert given == dict.fromkeys({order.member for order in orders} & here, "")
    after = {number: place(toy) for number, toy in members.items()}
    assert after == {0: before[1], 1: before[2], 2: before[2], 3: before[3]}
    assert members[0].hyperparameters == members[1].hyperparameters == h
    assert members[3].hyperparameters != h


class Broken(Toy):
    def train(self, steps: int) -> float:
        raise ArithmeticError("three is not a number")


class Mute(Toy):
    def evaluate(self, split: str = "validation"):
        return None


def test_what_a_member_raises_is_its_own_failure() -> None:
    row = Team({3: Broken({"h0": 1.0, "h1": 1.0})}).train(5)[3]
    assert math.isnan(row.score) and "ArithmeticError: three is not a number" in row.error
    assert "train" in row.error.splitlines()[1]
    missing = Team({3: Mute({"h0": 1.0, "h1": 1.0})}).train(5)[3]
    assert math.isnan(missing.score) and "TypeError" in missing.error
    assert not Team({3: Toy({"h0": 1.0, "h1": 1.0})}).train(5)[3].error


@pytest.mark.parametrize("stack", [True, False])
def test_copies_in_a_stack_and_beside_it_take_what_the_donor_had(stack: bool) -> None:
    members = {number: language(number, learning_rate=1e-3 * (number + 1)) for number in range(3)}
    groups = teams(members, stack)
    assert len(groups) == (1 if stack else 3)
    for team in groups:
        team.train(2)
    before = {number: member.state()["weights"] for number, member in members.items()}
    # 0 copies 1 while 1 copies 2
    orders = [Order(0, 1, {"learning_rate": 0.5}), Order(1, 2, {"learning_rate": 0.25})]
    assert brood.follow(None, 1, orders, groups) == {0: "", 1: ""}
    for number, donor in ((0, 1), (1, 2), (2, 2)):
        after = members[number].state()["weights"]
        assert all((after[name] == before[donor][name]).all() for name in after)
    assert members[0].hyperparameters == {"learning_rate": 0.5}


def test_failed_members_stay_as_they_are() -> None:
    found = [Team({0: Toy({"h0": 1.0, "h1": 1.0})}), Team({1: Toy({"h0": 1.0, "h1": 1.0})})]
    rows = {row.member: row for row in brood.train_teams(found, 5, {1: "why"})}
    assert math.isfinite(rows[0].score) and found[0].members[0].trained == 5
    assert math.isnan(rows[1].score) and rows[1].error == "why" and found[1].members[1].trained == 0
