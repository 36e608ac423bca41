"""Clones of the best weights ever: the checkpoint of then is kept, copied, recorded and found on resume."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.policies.population import Order
from shoal.search.driver.conductor import Conductor
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.messages import Message, Row
from shoal.search.records import tables
from shoal.search.records.lineage import ancestry, read_lineage
from shoal.search.worker import brood
from shoal.search.worker.teams import Team
from shoal.trainables.toy import Toy
from tests.helpers.directories import open_conductor
from tests.helpers.runs import shoal

TOY = str(Path(__file__).parents[3] / "examples/toy.yaml")
CHANGES = ("training.steps=24", "population.members=4", "population.interval=4", "population.backtrack=true")


class Peaked(Toy):
    """Is best after 8 steps, whatever it does; the members differ by what they began with."""

    def score(self) -> float:
        return 10.0 - abs(self.trained - 8) + super().score()


class Own(Peaked):
    """The same as a class of a run's file."""

    def __init__(self, recipe, hyperparameters, seed, device):
        super().__init__(hyperparameters)


class Silent:
    def say(self, line) -> None: ...

    def recorded(self, part) -> None: ...

    def failed(self, row, trace) -> None: ...

    def round(self, round_, rows, orders) -> None: ...


@pytest.fixture
def conductor(tmp_path) -> Conductor:
    run = load_run(
        TOY, [f"directory={tmp_path}", *CHANGES, "population.exploit={kind: truncation, fraction: 0.25}"]
    )
    store = Store(run.directory)
    state = population.start(run.space(), 4, run.seed)
    tables.write_starts(store, state)
    return Conductor(run, store, run.space(), run.rules(), state, lambda round_, orders: None, Silent())


def train(conductor: Conductor, members: dict[int, Toy], rounds: range) -> dict[int, list[Order]]:
    """Do without Ray what one brood does."""
    given: dict[int, list[Order]] = {}
    conductor.give_orders = lambda round_, told: given.update({round_: told.orders})
    found = [Team({number: member}) for number, member in members.items()]
    for round_ in rounds:
        rows = brood.train_teams(found, 4, {})
        told = [row._replace(round=round_, step=members[row.member].trained) for row in rows]
        conductor.receive(Message(told))
        brood.follow(None, round_, given[round_], found, earlier=brood.archive(conductor.store, None))
        for number, member in members.items():
            checkpoints.save_member(conductor.store, round_, number, member.state())
    conductor.wait()
    return given


def test_losers_go_back_to_the_best_weights_and_their_lineage_says_so(conductor) -> None:
    members = {number: Peaked(known.hyperparameters) for number, known in enumerate(conductor.state)}
    given = train(conductor, members, range(1, 4))
    # the best are those after 8 steps, which is round 2; in round 3 all are worse
    best, then = population.archived(conductor.state)
    assert (then.decision, then.step) == (2, 8)
    (order,) = given[3]
    assert (order.donor, order.decision) == (best, 2) and members[order.member].trained == 8
    kept = checkpoints.load_member(conductor.store, 2, best)
    assert np.array_equal(members[order.member].place, kept["weights"]["place"])
    path = ancestry(read_lineage(conductor.store), order.member)
    assert [(each.member, each.from_step, each.to_step) for each in path[-2:]] == [
        (best, path[-2].from_step, 8),
        (order.member, 8, None),
    ]


def test_the_best_weights_outlive_later_checkpoints_and_a_resume(conductor) -> None:
    members = {number: Peaked(known.hyperparameters) for number, known in enumerate(conductor.state)}
    train(conductor, members, range(1, 6))
    folders = conductor.store.names("checkpoints")
    assert folders == ["round-000002", "round-000004", "round-000005"]
    resumed = open_conductor(conductor.run, conductor.store, Silent())
    assert resumed.state == conductor.state and resumed.round == 5
    assert conductor.store.names("checkpoints") == ["round-000002", "round-000005"]
    again = {number: Peaked(known.hyperparameters) for number, known in enumerate(resumed.state)}
    for number, member in again.items():
        state = checkpoints.load_member(resumed.store, 5, number)
        member.load(state, resumed.state[number].hyperparameters)
    assert train(resumed, again, range(6, 7)) == train(conductor, members, range(6, 7))


def test_of_each_part_the_best_weights_are_kept(conductor) -> None:
    """Two parts, of which the other's scores are always higher; this one is best in round 1."""
    half = load_run(
        TOY,
        [
            f"directory={conductor.run.directory}",
            *CHANGES,
            "population.exploit={kind: truncation, fraction: 0.5}",
        ],
    )
    found = half.model_copy(update={"distill": SimpleNamespace(spaces={"small": 0, "large": 1})})
    conductor.run, conductor.rules, asked = found, found.rules(), []
    conductor.give_orders = lambda round_, told: asked.extend(told.orders)
    for round_ in range(1, 6):
        scores = [round_ * 1.0, -float(round_), round_ + 0.5, -round_ - 0.5]
        rows = [Row(member, round_, 4 * round_, score=score) for member, score in enumerate(scores)]
        conductor.receive(Message(rows))
        for member in range(4):
            checkpoints.save_member(conductor.store, round_, member, {"weights": {}, "round": round_})
    conductor.wait()
    assert {1, 4, 5} <= set(checkpoints.saved_rounds(conductor.store))
    back = [order for order in asked if order.decision is not None]
    assert {order.decision for order in back if order.member % 2} == {1}
    for order in back:
        checkpoints.load_member(conductor.store, order.decision, order.donor)
    resumed = open_conductor(found, conductor.store, Silent())
    assert resumed.earlier == [1, 5] and checkpoints.saved_rounds(conductor.store) == [5, 1]


def test_backtracking_needs_every_checkpoint_and_rounds(tmp_path) -> None:
    for change, said in (
        ("checkpoint.every=2", "checkpoint.every: must be 1 with population.backtrack"),
        ("population.mode=asynchronous", "population.backtrack: needs population.mode: synchronous"),
    ):
        with pytest.raises(InputError, match=said):
            load_run(TOY, [*CHANGES, change])


@pytest.mark.ray
@pytest.mark.slow
def test_on_ray_clones_go_back_to_the_checkpoint_of_then(conductor, tmp_path) -> None:
    members = {number: Peaked(known.hyperparameters) for number, known in enumerate(conductor.state)}
    train(conductor, members, range(1, 7))
    there = tmp_path / "ray"
    own = (
        *CHANGES,
        "trainable=tests.search.driver.test_backtrack:Own",
        "population.exploit={kind: truncation, fraction: 0.25}",
    )
    shoal("run", TOY, f"directory={there}", *own, "cluster={broods: 2, workers_per_brood: 1}")
    here, copies = read_lineage(conductor.store), read_lineage(Store(str(there)))
    assert copies == here
    assert any(event.parent is not None and event.parent_round < event.round for event in copies)
