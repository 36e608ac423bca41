"""Members whose classes hand out and keep their own arrays: nothing that the run keeps changes under it."""

import json
import struct
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shoal.cluster import checkpoints, mailbox, nests
from shoal.cluster.storage import Store
from shoal.policies.population import Order
from shoal.search.records.directory import arrays_by_name
from shoal.search.worker import brood
from shoal.search.worker.teams import Team
from shoal.trainables import handover
from shoal.trainables.batches import Shuffled
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from shoal.trainables.toy import Toy
from tests.helpers.members import POINTS, Points, _labels, _points, equal
from tests.helpers.runs import shoal


class Live:
    """Hands out what it trains with and keeps what it is given, in every shape that a state can have."""

    def __init__(self, hyperparameters: dict[str, Any], size: int = 3):
        self.chosen, self.trained = hyperparameters, 0
        self.whole = np.zeros((4, size))[1:3, ::2]  # a view
        self.parts = [np.zeros(size), np.array(0.0), (np.zeros(size, ">f4"),)]
        self.same = self.parts[0]
        self.tensor = torch.zeros(size, dtype=torch.bfloat16)

    def train(self, steps: int) -> float:
        for _ in range(steps):
            for array in (self.whole, self.same, self.parts[1], self.parts[2][0], self.tensor):
                array += 1
            self.trained += 1
        return 0.0

    def evaluate(self, split: str = "validation") -> tuple[float, dict[str, float]]:
        return float(self.whole[0, 0]), {}

    def state(self) -> dict[str, Any]:
        weights = {"whole": self.whole, "parts": self.parts, "same": self.same, "tensor": self.tensor}
        return {"weights": weights, "trained": self.trained}

    def load(self, state: dict[str, Any], hyperparameters: dict[str, Any]) -> None:
        weights = state["weights"]
        self.whole, self.parts, self.tensor = weights["whole"], weights["parts"], weights["tensor"]
        self.same, self.trained, self.chosen = weights["same"], state["trained"], hyperparameters


class Own(Live):
    """The same as a class of a run's file, large enough that writing it takes longer than a step."""

    def __init__(self, recipe, hyperparameters, seed, device):
        super().__init__(hyperparameters, 200_000)

    def evaluate(self, split: str = "validation") -> tuple[float, dict[str, float]]:
        return float(self.whole[0, 0]) * self.chosen["h0"], {}


def counts(state: dict[str, Any]) -> set[float]:
    """Return all numbers of steps that the arrays of a state tell of."""
    weights = state["weights"]
    arrays = [weights["whole"], *weights["parts"][:2], weights["parts"][2][0], weights["same"]]
    tensor = torch.as_tensor(weights["tensor"])
    plain = tensor if tensor.is_floating_point() else tensor.view(torch.bfloat16)
    return {float(each) for array in [*arrays, plain.float().numpy()] for each in np.unique(array)}


def test_a_state_is_of_its_time_whatever_is_trained_on() -> None:
    member = Live({})
    member.train(2)
    state = handed_out(member.state)
    member.train(3)
    assert counts(state) == {2.0} and state["trained"] == 2


def test_what_load_keeps_is_nobody_elses() -> None:
    donor, clones = Live({}), [Live({}), Live({})]
    donor.train(2)
    state, settings = handed_out(donor.state), {"rate": 0.5, "deep": {"x": [1]}}
    for clone in clones:
        hand_in(clone.load, state, settings)
        clone.chosen["deep"]["x"].append(2)
    clones[0].train(5)
    assert [counts(each.state()) for each in (donor, *clones)] == [{2.0}, {7.0}, {2.0}]
    assert counts(state) == {2.0} and settings == {"rate": 0.5, "deep": {"x": [1]}}


def test_what_was_read_only_or_of_torch_is_as_it_was_where_it_arrives() -> None:
    member, clone = Live({}), Live({})
    member.train(1)
    member.whole.flags.writeable = False  # as what Ray hands over
    for state in (handed_out(member.state), nests.loads(nests.dumps(handed_out(member.state)))):
        state["weights"]["whole"].flags.writeable = False
        hand_in(clone.load, state, {})
        clone.train(1)
        assert counts(clone.state()) == {2.0}
        assert clone.tensor.dtype == torch.bfloat16 and isinstance(clone.parts[2], tuple)
        assert clone.parts[2][0].dtype == ">f4" and clone.parts[1].shape == ()
        assert handover.TENSORS not in clone.state()


def test_one_array_under_two_keys_stays_one() -> None:
    shared = np.zeros(3)

    class Tied(Live):
        def state(self):
            return {"weights": {"in": shared, "out": shared}}

        def load(self, state, hyperparameters):
            state["weights"]["in"] += 1
            assert state["weights"]["out"].tolist() == [1, 1, 1]

    state = handed_out(Tied({}).state)
    hand_in(Tied({}).load, state, {})
    hand_in(Tied({}).load, nests.loads(nests.dumps(state)), {})
    assert shared.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "value",
    [
        {1: np.arange(3), (2, "x"): np.zeros(2)},
        {"array": np.ones(2), "a": {"b": np.zeros(1)}, "a/b": np.ones(1)},
        np.random.default_rng(1).bit_generator.state,
        np.random.RandomState(3).get_state(),
        np.array(["one", "two"]),
        np.array("2020-02-29", "M8[D]"),
        np.zeros((0, 3), np.complex128),
        np.float32(0.1),
        b"bytes",
        (1, (2.5, None), [True]),
        float("-inf"),
        2**90,
        torch.get_rng_state(),
        torch.optim.AdamW([torch.zeros(2, requires_grad=True)]).state_dict(),
    ],
)
def test_what_comes_back_from_a_file_is_what_was_handed_out(value) -> None:
    got = []

    class Odd(Live):
        def state(self):
            return {"value": value}

        def load(self, state, hyperparameters):
            got.append(state["value"])

    state = handed_out(Odd({}).state)
    hand_in(Odd({}).load, state, {})
    hand_in(Odd({}).load, nests.loads(nests.dumps(state)), {})
    for each in got:
        assert repr(each) == repr(value) and type(each) is type(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1, 2}, "is a set, which a checkpoint cannot keep"),
        (namedtuple("Slots", "a b")(1, 2), "is a Slots, which"),
        (np.array([None, "x"]), "array of object"),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), "is a MaskedArray, but must be a plain array"),
        (np.random.default_rng(0), "is a Generator, which"),
    ],
)
def test_what_cannot_be_kept_is_named_with_its_place(value, said: str) -> None:
    class Odd(Live):
        def state(self):
            return {"weights": {"w": [0, value]}}

    with pytest.raises(TypeError) as error:
        handed_out(Odd({}).state)
    assert str(error.value).startswith("Odd.state()['weights']['w'][1] is ") and said in str(error.value)


def test_nothing_is_copied_twice(monkeypatch) -> None:
    copies = []
    monkeypatch.setattr(handover, "_array", lambda leaf, named: copies.append(named) or np.array(leaf))
    toy, live = Toy({"h0": 1.0, "h1": 1.0}), Live({})
    live.tensor = live.whole
    assert handed_out(toy.state)["weights"]["place"].tolist() == [0.9, 0.9] and not copies

    class More(Toy):  # a state of its own is copied, whatever it is made of
        def state(self):
            return super().state() | {"more": self.place}

    assert handed_out(More({"h0": 1.0, "h1": 1.0}).state)["more"].tolist() == [0.9, 0.9] and len(copies) == 2
    copies.clear()
    handed_out(live.state)
    assert len(copies) == 4  # what is seen twice alike is copied once


class Counting(Shuffled):
    """Batches that keep their place in an array, which is changed in place."""

    def __init__(self):
        super().__init__((_points, _labels), batch=8)
        self.place = np.zeros(1, np.int64)

    def next(self):
        self.cursor = int(self.place[0])
        self.place += 1
        return super().next()

    def state(self):
        return {"place": self.place}

    def load(self, state):
        self.place = state["place"]


def test_batches_of_ones_own_do_not_run_ahead_of_a_state_or_a_stack() -> None:
    from shoal.trainables.settings import Recipe
    from tests.helpers.members import POINTS

    made = [Points(Recipe(steps=60, warmup=4), {}, Counting(), POINTS, seed) for seed in range(3)]
    state = handed_out(made[0].state)
    Stack(made[:2]).train(3)
    assert state["batches"]["place"].tolist() == [0]
    assert [each.batches.place.tolist() for each in made] == [[3], [3], [0]]
    for each in made[1:]:
        hand_in(each.load, state, {})
    made[1].train(2)
    assert [each.batches.place.tolist() for each in made] == [[3], [2], [0]]


def test_copies_within_a_worker_and_its_checkpoints_share_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mailbox, "post_weights", lambda *told: None)
    members = {number: Live({}) for number in range(3)}
    members[0].train(4)
    found = [Team({number: member}) for number, member in members.items()]
    writer = checkpoints.Writer(Store(str(tmp_path)))
    brood.follow(None, 1, [Order(1, 0, {"rate": 1.0}), Order(2, 0, {"rate": 2.0})], found)
    for number, member in members.items():
        writer.save(1, number, handed_out(member.state))
        member.train(number + 1)
    writer.wait()
    assert [counts(member.state()) for member in members.values()] == [{5.0}, {6.0}, {7.0}]
    for number in members:
        assert counts(checkpoints.load_member(writer.store, 1, number)) == {4.0}


def test_files_of_before_can_be_read() -> None:
    from safetensors.numpy import save

    skeleton = json.dumps({"weights": {"w": {"array": "/weights/w"}}, "trained": 3})
    old = save({"/weights/w": np.arange(3.0)}, metadata={"tree": skeleton})
    got = nests.loads(old)
    assert got["weights"]["w"].tolist() == [0, 1, 2] and got["trained"] == 3


def test_a_file_that_is_cut_off_or_changed_is_not_read() -> None:
    whole = nests.dumps({"weights": {"w": np.arange(50.0)}, "trained": 3})
    (header,) = struct.unpack("<Q", whole[:8])
    flipped = whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:]
    digit = whole.replace(b"3}", b"4}")
    assert digit != whole
    for content in (b"", whole[:20], whole[:header], whole[:-1], whole + b"x", flipped, digit):
        with pytest.raises(ValueError, match=r"it is cut off|its content is not what was written"):
            nests.loads(content)
    assert nests.loads(whole)["trained"] == 3


def test_nested_weights_are_exported_by_their_whole_names() -> None:
    got = arrays_by_name({"in": np.zeros(2), "layers": [{"w": np.ones(1)}, 2.5]})
    assert {name: value.tolist() for name, value in got.items()} == {
        "in": [0, 0],
        "layers.0.w": [1],
        "layers.1": 2.5,
    }


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_on_ray_each_checkpoint_is_of_one_moment(tmp_path, mode: str) -> None:
    own = ("trainable=tests.trainables.test_handover:Own", "training.steps=60", "checkpoint.keep=100")
    shape = ("population={members: 4, interval: 6, exploit: {kind: truncation, fraction: 0.25}}",)
    place = f"directory={tmp_path / 'run'}"
    shoal("run", "examples/toy.yaml", *own, *shape, f"population.mode={mode}", "cluster.broods=1", place)
    files = sorted(Path(tmp_path, "run/checkpoints").glob("*/member-*"))
    assert len(files) >= 20  # asynchronous members pass over rounds where no answer has come
    for file in files:
        state = nests.loads(file.read_bytes())
        assert counts(state) == {float(torch.tensor(state["trained"], dtype=torch.bfloat16)), state["trained"]}


def test_slots_are_laid_out_as_their_weights_are() -> None:
    """A weight may lie column by column, and the fused step reads weight and slot side by side."""

    class Turned(Points):
        def build(self):
            module = super().build()
            module.first.weight = nn.Parameter(module.first.weight.detach().mT.contiguous().mT)
            return module

    made = [
        Turned(Recipe(steps=60, warmup=4), {}, Shuffled((_points, _labels), batch=8), POINTS, 0) for _ in "ab"
    ]
    made[0].train(9)
    made[1].load(made[0].state(), {})
    assert made[0].train(9) == made[1].train(9) and equal(made[0].state(), made[1].state())
    assert not made[1].module.first.weight.is_contiguous()
