import math

import pytest

from cluster import workers
from policies.population import Order
from search import brood
from search.teams import Team
from trainables.toy import Toy


class Post:
    """The exchange of two workers, without Ray."""

    def __init__(self, monkeypatch):
        self.weights: dict[int, dict] = {}
        monkeypatch.setattr(
            workers, "post_weights", lambda e, r, member, state: self.weights.update({member: state})
        )
        monkeypatch.setattr(workers, "take_weights", lambda e, r, member: self.weights[member])


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
        assert given == {order.member for order in orders} & here
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
    assert math.isnan(row["score"]) and "ArithmeticError: three is not a number" in row["error"]
    assert "train" in row["error"].splitlines()[1]
    missing = Team({3: Mute({"h0": 1.0, "h1": 1.0})}).train(5)[3]
    assert math.isnan(missing["score"]) and "TypeError" in missing["error"]
    assert "error" not in Team({3: Toy({"h0": 1.0, "h1": 1.0})}).train(5)[3]
