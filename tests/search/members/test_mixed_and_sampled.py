"""A mixture of one's own and a choice of rows in one member: which rows a group has, and what share it has."""

from pathlib import Path

import numpy as np
import pytest
import torch

from shoal.policies.mixers.aioli import Aioli
from shoal.policies.mixers.doge import DoGE
from shoal.policies.mixers.mixer import Groups, Visit
from shoal.policies.mixers.plain import Stratified
from shoal.policies.mixers.visits import BoundedMixing
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.policies.sampling.random_subset import RandomSubset
from shoal.search.config.mixing import PROBED
from shoal.search.corpus.batches import MixedBatches
from shoal.search.load import load_run
from shoal.search.members.mixed import Mixed, VisitBatches, mixed_class
from shoal.search.members.sampled import sample_member
from shoal.search.worker.teams import teams
from shoal.trainables.language import LanguageModel
from shoal.trainables.settings import DecoderShape, Recipe
from tests.search.members.test_mixed import SHAPE, same
from tests.search.members.test_sampled import STREAMS

AIOLI = Aioli(every=10, probe_share=0.6, sweeps=1, noise=0.0, rate=0.5)


def member(rule, seed: int = 0, policy=AIOLI) -> Mixed:
    rows = np.random.default_rng(7).integers(0, 31, (2, 6, 12)).astype(np.uint16)
    by_group = dict(zip(STREAMS, rows, strict=True))
    held_out = dict.fromkeys(("validation", "test", PROBED), by_group)
    groups = Groups(tuple(STREAMS), tuple(stream.order.rows for stream in STREAMS.values()), batch=4, steps=60)
    batches = MixedBatches(STREAMS, np.array([0.5, 0.5]), 4)
    shape = DecoderShape(
        vocabulary=31, sequence_length=12, layers=SHAPE.layers, heads=SHAPE.heads, width=SHAPE.width
    )
    recipe = Recipe(steps=60, warmup=2, learning_rate=0.01)
    given = {"mixing": BoundedMixing(policy), "groups": groups, "shape": shape}
    found = mixed_class(LanguageModel)(recipe, {}, batches, held_out, seed, **given)
    sample_member(found, rule, seed=3, batches=60, number=0)
    return found


def test_a_batch_has_the_visits_counts_and_only_kept_rows() -> None:
    found = member(RandomSubset(0.5))
    found.visits.begin(Visit(2, np.array([[3, 1], [1, 3]]), frozenset(), "train", None))
    for counts in ([3, 1], [1, 3]):
        batch = found.batches.next()
        drawn = found.batches.waiting[-1]
        assert [len(ids) for _, ids in drawn] == counts and len(batch["rows"]) == 4
        assert all(pool.keep[ids].all() for pool, ids in drawn)
    assert 0 < found.batches.kept < 1


def test_the_weights_multiply() -> None:
    found = member(InfoBatch(0.5))
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
    weights = {
        "step": torch.tensor(7),
        "kept": torch.tensor([2.0, 1.0, 1.0, 2.0]),
        "below": torch.tensor([0.1, 0.2, 0.3, 0.4]),
    }
    # what is kept weighs 2/4, 1/4, 1/4, 2/4 of a mean over 4 rows; times 4 times the visit's weights
    assert found.batches.weigh(losses, weights).tolist() == pytest.approx([0.2, 0.2, 0.3, 0.8])


def test_both_policies_hear_the_losses_and_both_go_with_the_weights() -> None:
    donor, clone = member(InfoBatch(0.5)), member(InfoBatch(0.5), seed=1)
    donor.train(33)  # epochs of 24 and 40 rows: some are planned by losses
    assert donor.mixing_state["step"] == 33 and donor.mixing_state["evaluations"] > 0
    assert all(np.isfinite(pool.view.losses()).any() for pool in donor.batches.pools)
    clone.load(donor.state(), {})
    assert donor.train(20) == clone.train(20)
    assert same(donor.state(), clone.state())


def test_gradients_by_group_are_those_of_the_rows_that_are_kept_with_their_weights() -> None:
    split, plain = (
        member(InfoBatch(0.5), policy=policy) for policy in (DoGE(rate=0.0, proxy_share=1), Stratified())
    )
    for each in (split, plain):
        for _ in range(33):  # epochs are planned from the losses of the visits before
            each.train(1)
    # with equal weights of groups the sum over groups is the step on all rows
    assert split.mixing_state["policy"]["updates"] == 33 and split.mixing_state["policy"]["scores"].all()
    assert split.batches.kept == plain.batches.kept < 1
    for name, weight in split.weights().items():
        assert torch.allclose(weight, plain.weights()[name], atol=1e-4)


def test_a_stack_of_them_trains_as_each_alone() -> None:
    alone = {number: member(InfoBatch(0.5), number) for number in range(2)}
    (team,) = teams({number: member(InfoBatch(0.5), number) for number in range(2)}, stack=True)
    found = team.train(30)
    for number, each in alone.items():
        assert found[number].train_loss == pytest.approx(each.train(30), rel=1e-4)
        assert isinstance(team.members[number].batches.batches, VisitBatches)
        assert found[number].kept == each.batches.kept and found[number].mixture.groups


def test_the_example_of_both_can_be_run() -> None:
    run = load_run(str(Path(__file__).parents[3] / "examples/mixture-and-rows.yaml"))
    assert run.mixing is not None and run.sampling.rule is not None
