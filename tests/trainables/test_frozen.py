"""Frozen weights of an own class: they are a member's own, since its seed may draw them, and are kept once."""

from torch import nn

from shoal.trainables.batches import Shuffled
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.settings import Recipe
from tests.helpers.members import POINTS, Points, _labels, _points, equal


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.again = self.body  # the same layer under another name
        self.body.requires_grad_(False)

    def forward(self, x, rate):
        return self.last(self.again(x).relu())


class Frozen(Points):
    def build(self):
        return Layers()


def member(seed: int) -> Frozen:
    rows = Shuffled((_points, _labels), batch=8, seed=seed)
    return Frozen(Recipe(steps=60, warmup=4), {}, rows, POINTS, seed)


def test_a_frozen_and_tied_layer_is_in_a_state_once_and_without_slots() -> None:
    made = member(0)
    made.train(3)
    state = made.state()
    assert sorted(state["weights"]) == ["body.bias", "body.weight", "last.bias", "last.weight"]
    assert len(state["optimiser"]) == 2, "slots of the last layer's weight and bias"


def test_a_clone_goes_on_with_the_frozen_weights_of_its_donor() -> None:
    donor, clone = member(0), member(1)
    donor.train(3)
    before = donor.module.body.weight.clone()
    hand_in(clone.load, handed_out(donor.state), {})
    assert clone.train(4) == donor.train(4) and equal(clone.state(), donor.state())
    assert (clone.module.again.weight == before).all()
