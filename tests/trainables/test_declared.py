"""Classes that say which rows they take: their constants, their scores, and what their state holds."""

import numpy as np
import pytest
import torch

from shoal.trainables.arrays import pieces, rows_in
from shoal.trainables.constants import constants_of
from shoal.trainables.network import Network
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import HELD_OUT, Rows, equal, language
from tests.helpers.own_networks import Bigrams, Tied

RECIPE = Recipe(steps=40, warmup=2, learning_rate=0.02)


def bigrams(seed: int = 0, of: type[Network] = Bigrams, width: int = 8, **hyperparameters) -> Network:
    return of(RECIPE, hyperparameters, Rows(), HELD_OUT, seed, vocabulary=31, width=width)


def test_constants_are_what_a_class_annotates_with_what_it_inherits() -> None:
    class Wider(Bigrams):
        width: int = 64
        _cache: dict

    assert constants_of(Wider, Network).keys() == {"vocabulary", "width", "scale"}
    assert Wider.constants()["width"] == 64 and Bigrams.constants()["scale"] == 1.0


def test_constants_are_there_when_the_module_is_built() -> None:
    assert bigrams(width=5).module[0].weight.shape == (31, 5)
    with pytest.raises(TypeError, match="Bigrams has no constant `depth`; it has vocabulary, width, scale"):
        Bigrams(RECIPE, {}, Rows(), HELD_OUT, 0, vocabulary=31, depth=2)


def test_a_searched_constant_is_a_number_of_the_loss_and_no_part_of_the_score() -> None:
    low, high = bigrams(scale=0.1), bigrams(scale=3.0, label_smoothing=0.3, dropout=0.5)
    assert (low.numbers["scale"], high.numbers["scale"], bigrams().numbers["scale"]) == (0.1, 3.0, 1.0)
    assert low.evaluate() == high.evaluate()
    assert low.train(3) != high.train(3)
    high.load(low.state(), {"scale": 2.0})
    assert high.numbers["scale"] == 2.0 and high.evaluate() == low.evaluate()


def test_the_score_is_minus_the_mean_of_the_groups_mean_losses() -> None:
    member = bigrams()
    score, losses = member.evaluate()
    by_hand = {}
    for group, rows in HELD_OUT["validation"].items():
        tokens = torch.from_numpy(rows).long()
        logs = member.module(tokens[:, :-1]).log_softmax(dim=-1)
        by_hand[group] = -logs.gather(-1, tokens[:, 1:, None]).mean().item()
    assert losses == pytest.approx(by_hand, rel=1e-6)
    assert score == pytest.approx(-sum(by_hand.values()) / 2, rel=1e-6)
    member.targets = ("law",)
    assert member.evaluate()[0] == -losses["law"]


def test_held_out_rows_are_judged_in_pieces_of_any_nest() -> None:
    batch = {"image": np.arange(10).reshape(5, 2), "label": np.arange(5)}
    parts = pieces(batch, 2)
    assert rows_in(batch) == 5 and [rows_in(part) for part in parts] == [2, 2, 1]
    assert parts[1]["image"].tolist() == [[4, 5], [6, 7]] and parts[2]["label"].tolist() == [4]


def test_members_with_searched_constants_train_stacked() -> None:
    alone = [bigrams(seed, scale=0.5 + seed) for seed in range(3)]
    stack = Stack([bigrams(seed, scale=0.5 + seed) for seed in range(3)])
    losses = stack.train(5)
    for each, loss in zip(alone, losses, strict=True):
        assert each.train(5) == pytest.approx(loss, rel=1e-4)


def test_tied_weights_are_in_the_state_once_and_older_states_load() -> None:
    donor, clone = bigrams(1, Tied), bigrams(2, Tied)
    donor.train(3)
    state = donor.state()
    assert state["weights"].keys() == {"0.weight", "1.bias"}
    old = state | {"weights": state["weights"] | {"1.weight": state["weights"]["0.weight"]}}
    clone.load(old, {})
    assert clone.module[1].weight is clone.module[0].weight
    assert clone.train(4) == donor.train(4) and equal(clone.state(), donor.state())


def test_weights_of_other_layers_or_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="of the same layers, but only one has"):
        bigrams().load(language().state(), {})
    with pytest.raises(ValueError, match=r"must be .31, 8. of torch.float32, but is .31, 9."):
        bigrams().load(bigrams(width=9).state(), {})
    weights = bigrams().state()["weights"]
    with pytest.raises(ValueError, match=r"only one has 7.weight"):
        bigrams().load_weights(weights | {"7.weight": weights["0.weight"]})


def test_the_standard_error_of_a_loss_is_that_of_the_mean_over_its_rows() -> None:
    class Given(Bigrams):
        """Its rows have the losses 1, 2 and 3: a deviation of 1, so an error of 1 / sqrt(3)."""

        def row_losses(self, module, rows):
            return {"code": torch.tensor([1.0, 2.0, 3.0]), "law": torch.tensor([4.0])}

    member = bigrams(of=Given)
    assert member.loss_errors == {}
    assert member.evaluate() == (-3.0, {"code": 2.0, "law": 4.0})
    # one row has no error that anybody could know
    assert member.loss_errors == {"code": pytest.approx(3**-0.5)}


def test_a_stack_knows_the_errors_that_its_members_know_alone() -> None:
    members = [bigrams(seed) for seed in range(3)]
    alone = [(member.evaluate(), dict(member.loss_errors))[1] for member in members]
    for member in members:
        member.loss_errors = {}
    Stack(members).evaluate_together("validation")
    for member, errors in zip(members, alone, strict=True):
        assert (
            member.loss_errors == pytest.approx(errors, rel=1e-6)
            and errors.keys() == HELD_OUT["validation"].keys()
        )


def test_a_class_with_a_score_of_its_own_has_no_errors() -> None:
    class Own(Bigrams):
        def score(self, module, rows):
            score, losses = super().score(module, rows)
            return 2 * score, losses

    member = bigrams(of=Own)
    score, losses = member.evaluate()
    assert (score, losses) == (
        2 * bigrams().evaluate()[0],
        bigrams().evaluate()[1],
    ) and member.loss_errors == {}
