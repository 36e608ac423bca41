"""Classifiers that learn the weights of their rows (STORM): noisy labels, copies, the weigher's optimiser."""

import numpy as np
import pytest
import torch

from shoal.search.members.classes import features_of
from shoal.trainables.batches import Shuffled
from shoal.trainables.class_rescaling import Rescaling, Weigher
from tests.helpers.classifiers import classifier, points
from tests.helpers.members import equal

GIVEN = Rescaling(passes=3, rate=0.01, virtual=0.5, wide=19, features=features_of)


class Weighed:
    """Batches with weights of their own, here all equal."""

    def __init__(self, batches: Shuffled):
        self.batches = batches

    def next(self):
        return {"rows": self.batches.next(), "weights": np.ones(self.batches.batch, np.float32)}

    def weigh(self, losses, weights):
        return weights / len(weights)

    def observe(self, losses) -> None:
        assert losses.shape[1:] == (self.batches.batch,)

    def state(self):
        return self.batches.state()

    def load(self, state) -> None:
        self.batches.load(state)


def weighed(seed: int = 0, flipped: float = 0.0, rows: int = 800, batch: int = 64):
    """Return a classifier that learns weights, and which of its rows have a wrong label."""
    member = classifier(None, seed, {"dropout": 0.2, "learning_rate": 0.01}, rescaling=GIVEN, width=16)
    given = points(1, rows)
    wrong = np.random.default_rng(3).random(rows) < flipped
    given["label"] = np.where(wrong, (given["label"] + 1) % 3, given["label"])
    member.batches = Weighed(Shuffled({**given, "wrong": wrong}, batch, seed))
    return member


def test_rows_of_wrong_labels_get_smaller_weights() -> None:
    member = weighed(flipped=0.3)
    member.train(200)
    rows = {name: torch.from_numpy(each) for name, each in member.batches.batches.arrays.items()}
    member.module.train()
    torch.manual_seed(0)
    weights, wrong = member.learnt.weights(rows).numpy(), rows["wrong"].numpy()
    above = (weights[~wrong][:, None] > weights[wrong]).mean()
    # other batches and steps gave between 0.85 and 0.95
    assert above > 0.85, above
    assert member.evaluate()[0] > 0.85


def test_a_copy_goes_on_bit_for_bit_with_its_weights() -> None:
    donor, copy = weighed(1), weighed(2)
    donor.train(4)
    copy.load(donor.state(), donor.hyperparameters)
    assert donor.train(3) == copy.train(3)
    assert equal(donor.state(), copy.state())
    assert donor.alone


def test_the_weighing_network_is_not_among_the_trained_weights() -> None:
    member = weighed()
    before = {name: value.clone() for name, value in member.module.weigher.rescaler.named_parameters()}
    assert not any(name.startswith("weigher") for name in member.weights())
    member.train(1)  # nothing is learnt from a first batch alone
    own = dict(member.module.weigher.rescaler.named_parameters())
    assert all(torch.equal(value, own[name]) for name, value in before.items())
    member.train(1)
    assert not torch.equal(before["each.0.0.weight"], own["each.0.0.weight"])


def test_the_weighing_networks_optimiser_is_adam() -> None:
    torch.manual_seed(0)
    weigher = Weigher(4, 2)
    theirs = [weight.detach().clone().requires_grad_() for weight in weigher.rescaler.parameters()]
    adam = torch.optim.Adam(theirs, lr=0.01)
    for _ in range(3):
        slopes = [torch.randn_like(weight) for weight in theirs]
        for weight, slope in zip(theirs, slopes, strict=True):
            weight.grad = slope
        adam.step()
        weigher.descend(slopes, 0.01)
    for own, wanted in zip(weigher.rescaler.parameters(), theirs, strict=True):
        assert own.detach().numpy() == pytest.approx(wanted.detach().numpy(), abs=1e-6)
