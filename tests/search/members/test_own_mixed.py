"""Mixing and sampling policies in networks of a user's own, by the same contracts as in the decoder."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from shoal.cluster import nests
from shoal.policies.mixers.doge import DoGE
from shoal.policies.mixers.doremi import DoReMi
from shoal.policies.mixers.mixer import Groups
from shoal.policies.mixers.rules import MIXERS
from shoal.policies.mixers.visits import BoundedMixing
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.search.config.mixing import PROBED
from shoal.search.corpus.batches import MixedBatches
from shoal.search.members.mixed import Mixed, mixed_class
from shoal.search.members.sampled import sample_member
from shoal.search.worker.teams import teams
from shoal.trainables.batches import NoBatches
from shoal.trainables.network import Network
from shoal.trainables.reference import Reference
from shoal.trainables.settings import Recipe
from tests.helpers.own_networks import Bigrams, Noisy
from tests.search.members.test_mixed import NAMES, batches, same
from tests.search.members.test_mixed_and_sampled import STREAMS
from tests.search.members.test_policies_in_members import EXAMPLES, STEPS

RECIPE = Recipe(steps=STEPS, warmup=2, learning_rate=0.05)


def reference(of: type[Network] = Bigrams) -> Reference:
    model = of(RECIPE, {}, NoBatches(), {}, 5, vocabulary=16)
    return Reference(partial(model.parts, model.module.eval()), 300)


def member(policy: Any, seed: int = 0, of: type[Network] = Bigrams, **hyperparameters: Any) -> Mixed:
    rows = np.random.default_rng(7).integers(0, 16, (2, 6, 8)).astype(np.uint16)
    by_group = dict(zip(NAMES, rows, strict=True))
    held_out = dict.fromkeys(("validation", "test", PROBED), by_group)
    groups = Groups(NAMES, (100, 50), batch=4, steps=STEPS)
    given = {"mixing": BoundedMixing(policy, floor=0.1), "groups": groups, "reference": reference(of)}
    return mixed_class(of)(RECIPE, hyperparameters, batches(), held_out, seed, vocabulary=16, **given)


def test_a_class_is_made_once_and_keeps_its_name() -> None:
    assert mixed_class(Bigrams) is mixed_class(Bigrams)
    assert mixed_class(Bigrams).__name__ == "MixedBigrams" and issubclass(mixed_class(Bigrams), Bigrams)


@pytest.mark.parametrize("name", MIXERS)
def test_a_network_of_ones_own_trains_its_budget_and_clones(name: str) -> None:
    donor, clone = member(EXAMPLES[name], seed=1), member(EXAMPLES[name], seed=2)
    for steps in (3, 16, 8):
        donor.train(steps)
    clone.train(6)
    clone.load(nests.loads(nests.dumps(donor.state())), {})
    for each in (donor, clone):
        each.train(STEPS - 27)
    assert same(donor.state(), clone.state())
    assert donor.trained == STEPS and donor.mixing_state["seen"].sum() == 4 * STEPS


@pytest.mark.parametrize("name", MIXERS)
def test_networks_of_ones_own_train_stacked_on_mixtures_of_their_own(name: str) -> None:
    alone = [member(EXAMPLES[name], seed, scale=0.5 + seed) for seed in range(2)]
    together = {seed: member(EXAMPLES[name], seed, scale=0.5 + seed) for seed in range(2)}
    rows = {n: row for team in teams(together, stack=True) for n, row in team.train(20).items()}
    for seed, each in enumerate(alone):
        assert rows[seed].train_loss == pytest.approx(each.train(20), rel=1e-4)


def test_an_excess_by_row_is_the_loss_above_that_of_the_reference() -> None:
    # one loss a row: at equal weights there is no excess, whatever the label smoothing of training
    policy = DoReMi(proxy_share=1.0)
    equal = member(policy, label_smoothing=0.2)
    equal.load_weights(Bigrams(RECIPE, {}, NoBatches(), {}, 5, vocabulary=16).state()["weights"])
    equal.ready(1)
    equal.step()
    (excess,) = equal.visits.noted["excess"]
    assert excess.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    other = member(policy)
    other.ready(1)
    rows = other.batches.mixed.take([2, 2])
    ours = other.parts(other.module, torch.from_numpy(rows)).detach().numpy()[:, 0]
    theirs = reference().losses(torch.from_numpy(rows))[:, 0]
    by_hand = np.maximum(ours - theirs, 0).reshape(2, 2).mean(axis=1)
    other = member(policy)
    other.ready(1)
    other.visits.counts = np.array([[2, 2]])
    other.step()
    assert other.visits.noted["excess"][0].tolist() == pytest.approx(by_hand.tolist(), rel=1e-5)


def test_an_excess_is_measured_without_the_modules_own_dropout() -> None:
    found = member(DoReMi(proxy_share=1.0), of=Noisy)
    found.load_weights(Noisy(RECIPE, {}, NoBatches(), {}, 5, vocabulary=16).state()["weights"])
    found.ready(1)
    found.module.train()
    found.step()
    assert found.visits.noted["excess"][0].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert found.module.training


def test_alignments_are_inner_products_of_the_groups_gradients() -> None:
    found = member(DoGE(proxy_share=1.0, own=True))
    found.ready(1)
    found.visits.counts = np.array([[2, 2]])
    rows = torch.from_numpy(found.batches.mixed.take([2, 2]))
    flat = []
    for part in (rows[:2], rows[2:]):
        loss = found.loss(found.module, part, found.numbers).mean()
        slopes = torch.autograd.grad(loss, list(found.weights().values()))
        flat.append(torch.cat([slope.flatten() for slope in slopes]).double())
    by_hand = [[float(a @ b) for b in flat] for a in flat]
    again = member(DoGE(proxy_share=1.0, own=True))
    again.ready(1)
    again.visits.counts = np.array([[2, 2]])
    again.step()
    assert again.visits.noted["alignment"][0].tolist() == [pytest.approx(row, rel=1e-4) for row in by_hand]


def test_a_mixture_and_a_choice_of_rows_go_together_in_a_network_of_ones_own() -> None:
    rows = np.random.default_rng(7).integers(0, 31, (2, 6, 12)).astype(np.uint16)
    held_out = {split: dict(zip(STREAMS, rows, strict=True)) for split in ("validation", PROBED)}
    groups = Groups(tuple(STREAMS), tuple(each.order.rows for each in STREAMS.values()), batch=4, steps=60)
    mixed = MixedBatches(STREAMS, np.array([0.5, 0.5]), 4)
    given = {"mixing": BoundedMixing(EXAMPLES["aioli"]), "groups": groups, "vocabulary": 31}
    found = mixed_class(Bigrams)(RECIPE, {}, mixed, held_out, 0, **given)
    sample_member(found, InfoBatch(0.5), seed=3, batches=60, number=0)
    assert np.isfinite(found.train(40))
    assert any(pool.epoch > 0 for pool in found.batches.pools)
