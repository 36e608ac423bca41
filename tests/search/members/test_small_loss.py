"""Wrong labels are left out while a member trains (Albert et al., 2024)."""

import numpy as np
import pytest
from torch import nn

from shoal.cluster import nests
from shoal.policies.sampling.small_loss import SmallLossRows
from shoal.search.members.sampled import sample_member
from shoal.trainables.batches import Shuffled
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy
from shoal.trainables.settings import Recipe
from tests.helpers.members import equal

ROWS, CLASSES = 600, 5
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(CLASSES, 12)).astype(np.float32) * 2
TRUE = RNG.integers(0, CLASSES, ROWS)
POINTS = CENTRES[TRUE] + RNG.normal(size=(ROWS, 12)).astype(np.float32)
WRONG = RNG.random(ROWS) < 0.3
LABELS = np.where(WRONG, (TRUE + RNG.integers(1, CLASSES, ROWS)) % CLASSES, TRUE)
SCORE = np.where(RNG.random(ROWS) < 0.9, WRONG, ~WRONG) + 0.1 * RNG.normal(size=ROWS)  # right for nine of ten


class Told(Network):
    """Tells classes of points apart, of which three of ten have a wrong label."""

    def build(self) -> nn.Module:
        return nn.Linear(12, CLASSES)

    def loss(self, module, batch, numbers):
        points, labels = batch
        return cross_entropy(module(points), labels)

    def score(self, module, rows):
        points, labels = rows
        return (module(points).argmax(dim=-1) == labels).double().mean(), {}


def member(rule: SmallLossRows, **hyperparameters) -> Told:
    rows = Shuffled((POINTS, LABELS), batch=30, seed=3)
    held_out = {"validation": (POINTS, TRUE)}
    made = Told(Recipe(steps=100, warmup=0, learning_rate=0.02), hyperparameters, rows, held_out, 1)
    sample_member(made, rule, 0, 100, 0)
    made.batches.pools[0].score = SCORE.astype(np.float32)
    return made


def auc(values: np.ndarray, truth: np.ndarray) -> float:
    order = np.argsort(np.argsort(values))
    return float((order[truth].mean() - (truth.sum() - 1) / 2) / (~truth).sum())


def test_wrong_labels_are_found_and_left_out() -> None:
    made = member(SmallLossRows())
    made.train(40)  # two epochs of 20 batches
    assert auc(made.batches.pools[0].view.losses(), WRONG) > 0.95
    made.train(1)
    keep = made.batches.pools[0].keep
    assert (~keep & WRONG).sum() / WRONG.sum() > 0.8  # recall
    assert (~keep & WRONG).sum() / (~keep).sum() > 0.9  # precision


def test_a_left_out_row_comes_back_for_its_loss_and_trains_nothing() -> None:
    made, seen = member(SmallLossRows(again=1)), []
    for _ in range(80):
        made.train(1)
        pool = made.batches.pools[0]
        seen.append((pool.epoch, (pool.weight == 0).sum(), pool.keep.sum()))
    looked = {epoch: (int(zeros), int(kept)) for epoch, zeros, kept in seen}
    assert looked[1][0] == 0 and looked[1][1] < ROWS  # the first split leaves rows out
    assert looked[2][0] > 100 and looked[2][1] > 550  # which come back one epoch later, with weight 0


def test_the_parity_of_the_epoch_goes_on_after_a_resume() -> None:
    first = member(SmallLossRows(alternate="high"))
    first.train(25)
    again = member(SmallLossRows(alternate="high"))
    again.load(nests.loads(nests.dumps(first.state())), {})
    first.train(30)
    again.train(30)
    pools = [each.batches.pools[0] for each in (first, again)]
    assert equal(first.state(), again.state()) and pools[0].epoch == pools[1].epoch >= 2
    by_score = SCORE > 0.5
    left_out = [(~pool.keep & by_score).sum() / (~pool.keep).sum() for pool in pools]
    assert left_out[0] == left_out[1] and (left_out[0] > 0.95) == (pools[0].epoch % 2 == 0)


def test_a_clone_goes_by_its_own_number() -> None:
    donor = member(SmallLossRows(), sampling={"certain": 0.95})
    donor.train(25)
    clone = member(SmallLossRows(), sampling={"certain": 0.5})
    clone.load(donor.state(), {"sampling": {"certain": 0.02}})
    same = member(SmallLossRows(), sampling={"certain": 0.95})
    same.load(donor.state(), {"sampling": {"certain": 0.95}})
    for each in (donor, clone, same):
        each.train(5)
    keep = [each.batches.pools[0].keep for each in (donor, clone, same)]
    assert np.array_equal(keep[0], keep[2]) and equal(donor.state(), same.state())
    assert keep[1].sum() < keep[0].sum() and not (keep[1] & ~keep[0]).any()


def test_words_of_a_rule_are_checked() -> None:
    with pytest.raises(ValueError, match="alternate must be never, high or low, but got both"):
        SmallLossRows(alternate="both")
