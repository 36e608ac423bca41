"""Every mixing policy in members: budget, ready points, clones, stacks, what is measured within a step."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from shoal.cluster import nests
from shoal.policies.mixers.ado import ADO
from shoal.policies.mixers.aioli import Aioli
from shoal.policies.mixers.doge import DoGE
from shoal.policies.mixers.doremi import DoReMi
from shoal.policies.mixers.mixer import WITHIN, Groups
from shoal.policies.mixers.plain import (
    EndUpsampling,
    Fixed,
    Proportional,
    Random,
    Stages,
    Stratified,
    Temperature,
)
from shoal.policies.mixers.rules import MIXERS
from shoal.policies.mixers.skillit import SkillIt
from shoal.policies.mixers.visits import BoundedMixing
from shoal.search.config.mixing import PROBED
from shoal.search.members.mixed import Mixed, mixed_class
from shoal.search.worker.teams import teams
from shoal.trainables.decoder import Decoder, initialise, losses_by_token
from shoal.trainables.language import LanguageModel
from shoal.trainables.reference import Reference
from shoal.trainables.settings import Recipe
from tests.search.members.test_mixed import NAMES, SHAPE, batches, same

EXAMPLES: dict[str, Any] = {
    "fixed": Fixed((0.7, 0.3)),
    "stratified": Stratified(),
    "proportional": Proportional(),
    "temperature": Temperature(),
    "random": Random(),
    "stages": Stages(((0, (1.0, 0.0)), (21, (0.25, 0.75)))),
    "end_upsampling": EndUpsampling((0.0, 1.0), share=0.3),
    "aioli": Aioli(every=10, probe_share=0.6, sweeps=1, noise=0.0, rate=0.5),
    "ado": ADO(every=2, refit=8, skip=2),
    "skill_it": SkillIt(((0.5, 0.1), (0.2, 0.4)), every=7),
    "doremi": DoReMi(proxy_share=0.6),
    "doge": DoGE(every=2, proxy_share=0.6, own=True, rate=0.3),
}
STEPS = 40
MODEL = mixed_class(LanguageModel)


def stranger(seed: int = 5) -> Decoder:
    module = Decoder(SHAPE)
    initialise(module, torch.Generator().manual_seed(seed))
    return module.eval()


def reference(module: Decoder) -> Reference:
    return Reference(lambda tokens: losses_by_token(module(tokens.long()), tokens.long()), 300)


def member(policy: Any, seed: int = 0, floor: float = 0.1, **hyperparameters: Any) -> Mixed:
    rows = np.random.default_rng(7).integers(0, 16, (2, 6, 8)).astype(np.uint16)
    by_group = dict(zip(NAMES, rows, strict=True))
    held_out = dict.fromkeys(("validation", "test", PROBED), by_group)
    groups = Groups(NAMES, (100, 50), batch=4, steps=STEPS)
    recipe = Recipe(steps=STEPS, warmup=2, learning_rate=0.01)
    given = {"mixing": BoundedMixing(policy, floor=floor), "groups": groups, "reference": reference(stranger())}
    return MODEL(recipe, hyperparameters, batches(), held_out, seed, shape=SHAPE, **given)


def test_all_policies_are_tried() -> None:
    assert EXAMPLES.keys() == MIXERS.keys()


@pytest.mark.parametrize("name", MIXERS)
def test_a_member_trains_its_budget_wherever_it_is_ready_and_says_what_it_trained(name: str) -> None:
    often, once = member(EXAMPLES[name]), member(EXAMPLES[name])
    for steps in (3, 5, 16, 1, 15):
        often.train(steps)
    once.train(STEPS)
    assert same(often.state(), once.state())
    state = once.mixing_state
    assert once.trained == state["step"] == STEPS and state["seen"].sum() == 4 * STEPS
    account = once.account()
    shares = [group.proportion for group in account.groups]
    assert sum(shares) == pytest.approx(1.0) and min(shares) >= 0.1 - 1e-9
    assert account.extra_steps == 300


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("steps", [2, 27])
def test_a_clone_goes_on_as_its_donor(name: str, steps: int) -> None:
    donor, clone = member(EXAMPLES[name], seed=1), member(EXAMPLES[name], seed=2)
    donor.train(steps)
    clone.train(6)
    clone.load(nests.loads(nests.dumps(donor.state())), {})
    for each in (donor, clone):
        each.train(11)
    assert same(donor.state(), clone.state())


@pytest.mark.parametrize("name", MIXERS)
def test_members_train_stacked_unless_something_is_measured_within_a_step(name: str) -> None:
    alone = [member(EXAMPLES[name], seed) for seed in range(2)]
    found = teams({seed: member(EXAMPLES[name], seed) for seed in range(2)}, stack=True)
    within = bool(EXAMPLES[name].signals & WITHIN)
    assert within == (name in ("doremi", "doge")) and len(found) == (2 if within else 1)
    rows = {number: row for team in found for number, row in team.train(30).items()}
    for seed, each in enumerate(alone):
        assert rows[seed].train_loss == pytest.approx(each.train(30), rel=1e-4)
        assert rows[seed].stacked is not within


def gradients_of(model: Mixed, rows: np.ndarray) -> np.ndarray:
    """Return the gradient of the rows' mean loss at the model's weights, in one flat piece."""
    loss = model.loss(model.module, torch.from_numpy(rows), model.numbers).mean()
    return np.concatenate(
        [part.flatten().numpy() for part in torch.autograd.grad(loss, list(model.weights().values()))]
    )


def test_doge_hears_inner_products_of_the_groups_gradients() -> None:
    # the floor of 0.3 is the least weight too: a huge rate brings one group to 0.7 after the first step
    policy = DoGE(rate=50.0, own=True, proxy_share=1.0)
    model, flat = member(policy, floor=0.3), []
    code, law = (stream.take(0, 2) for stream in model.visits.mixed.streams)
    for _ in range(2):  # two rows of each group a step
        flat.append([gradients_of(model, rows.astype(np.int64)) for rows in (code, law)])
        model.train(1)
        code, law = (stream.take(2, 2) for stream in model.visits.mixed.streams)
    products = np.array([np.array(each) @ np.array(each).T for each in flat])
    scores = products.sum(axis=2) / np.sqrt(np.diagonal(products, axis1=1, axis2=2)).mean(axis=1)[:, None]
    told = np.clip(scores, 0, 5)
    # log odds grow by the rate times the difference of the scores, whatever the weights of the step were
    odds = np.log(np.divide(*model.mixing_state["policy"]["weights"]))
    assert odds == pytest.approx(50 * np.subtract(*told.T).sum(), rel=1e-3)
    assert model.account().groups[0].proportion in (pytest.approx(0.3), pytest.approx(0.7))


@pytest.mark.parametrize(
    "policy", [DoReMi(rate=1e4, proxy_share=1.0), DoGE(rate=1e4, own=True, proxy_share=1.0)]
)
def test_a_step_is_trained_with_the_weights_of_its_own_score(policy: Any) -> None:
    # so high a rate leaves one group: the step is that on its two rows alone, and not on all four
    model, plain = member(replace(policy, smoothing=0.0), floor=0.0), member(Stratified())
    rows = [stream.take(0, 2).astype(np.int64) for stream in model.visits.mixed.streams]
    model.train(1)
    weights = model.mixing_state["policy"]["weights"]
    assert weights.max() == 1.0 and (model.visits.by_group == weights).all()
    tokens = torch.from_numpy(rows[int(weights.argmax())])
    plain.set_rates()
    plain.module.train()
    plain.loss(plain.module, tokens, plain.numbers).mean().backward()
    plain.descend()
    for name, weight in model.weights().items():
        assert weight.detach().numpy() == pytest.approx(plain.weights()[name].detach().numpy(), abs=1e-6)


def test_dropout_is_no_excess() -> None:
    model = member(DoReMi(proxy_share=1.0), dropout=0.5)
    model.reference = reference(copy.deepcopy(model.module).eval())
    model.train(1)
    assert model.mixing_state["policy"]["scores"] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert model.mixing_state["policy"]["weights"] == pytest.approx([0.5, 0.5], abs=1e-6)


def test_a_batch_of_groups_without_weight_counts_its_rows() -> None:
    model = member(Stratified())
    model.visits.counts, model.visits.done = np.array([[0, 4]]), 1
    model.visits.by_group = np.array([1.0, 0.0])
    assert model.visits.shares.tolist() == [0.0, 1.0]


def test_a_step_by_groups_is_the_step_on_their_weighted_sum() -> None:
    # a rate of 0 keeps equal weights, and there are as many rows of each: the mean over rows
    split, plain = member(DoGE(rate=0.0, proxy_share=1.0)), member(Stratified())
    split.train(6)
    plain.train(6)
    for name, weight in split.weights().items():
        assert weight.detach().numpy() == pytest.approx(plain.weights()[name].detach().numpy(), abs=1e-5)


def test_doremi_hears_what_each_token_costs_more_than_the_reference() -> None:
    model = member(DoReMi(smoothing=0.0, proxy_share=1.0))
    expected = []
    for stream in model.visits.mixed.streams:
        tokens = torch.from_numpy(stream.take(0, 2).astype(np.int64))
        logs = [
            module(tokens)[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
            for module in (model.module, stranger())
        ]
        expected.append((logs[1] - logs[0]).clamp(min=0).mean().item())
    model.train(1)
    assert model.mixing_state["policy"]["scores"] == pytest.approx(expected, abs=1e-5) and min(expected) > 0
    itself = member(DoReMi(proxy_share=1.0))
    itself.reference = reference(copy.deepcopy(itself.module).eval())
    itself.train(1)
    assert itself.mixing_state["policy"]["weights"] == pytest.approx([0.5, 0.5], abs=1e-6)


def test_members_of_a_worker_ask_a_reference_once_for_a_batch() -> None:
    first, second = member(EXAMPLES["doremi"], 1), member(EXAMPLES["doremi"], 2)
    assert first.reference is not None
    second.reference = first.reference
    first.train(6)
    known = len(first.reference.known)
    second.train(6)
    assert known == len(first.reference.known) == 6


def test_settings_of_a_proxy_can_be_evolved() -> None:
    evolved = member(EXAMPLES["doge"], mixing={"rate": 0.9, "proxy_share": 0.2})
    assert evolved.mixing.policy == replace(EXAMPLES["doge"], rate=0.9, proxy_share=0.2)
    evolved.train(10)
    assert evolved.mixing_state["policy"]["updates"] == 8  # a fifth of 40 steps


def test_a_member_is_scored_by_what_it_does_not_train_on() -> None:
    rows = np.random.default_rng(7).integers(0, 16, (3, 6, 8)).astype(np.uint16)
    by_group = dict(zip((*NAMES, "mail"), rows, strict=True))
    held_out = {"validation": by_group, "test": by_group, PROBED: {"mail": by_group["mail"]}}
    groups, recipe = Groups(NAMES, (100, 50), 4, STEPS, ("mail",)), Recipe(steps=STEPS, learning_rate=0.01)
    policy = Aioli(every=10, probe_share=0.6, sweeps=1, noise=0.0)
    given = {"mixing": BoundedMixing(policy), "groups": groups}
    found = MODEL(recipe, {}, batches(), held_out, 0, shape=SHAPE, **given)
    found.train(STEPS)
    score, losses = found.evaluate()
    assert score == -losses["mail"] and losses.keys() == {*NAMES, "mail"}
    groups = found.account().groups
    assert [(each.group, len(each.effects)) for each in groups] == [(name, 1) for name in NAMES]
