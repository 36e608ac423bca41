import math

import numpy as np
import pytest
import torch

from shoal.trainables.arrays import copy_into, to_arrays
from shoal.trainables.batches import Shuffled
from shoal.trainables.decoder import Decoder, initialise, rotary_angles, rotate, token_losses
from shoal.trainables.searched_numbers import cross_entropy, dropout, squared_log_partition
from shoal.trainables.settings import DecoderShape, Recipe, rate_at
from shoal.trainables.toy import Toy
from tests.helpers.members import SHAPE, equal, language, points, supernet


def make(name: str, seed: int = 0):
    if name == "toy":
        return Toy({"h0": 1.0, "h1": 0.25 * seed})
    build, _, kind = name.partition("-")
    if name == "supernet":
        return supernet(seed, learning_rate=3e-3, tilt=0.5, inplace=0.3)
    numbers = {"learning_rate": 3e-3, "dropout": 0.2, "label_smoothing": 0.1}
    return {"decoder": language, "points": points}[build](seed, kind=kind, **numbers)


@pytest.mark.parametrize("name", ["toy", "decoder-adamw", "decoder-sgd", "points-adamw", "supernet"])
class TestEveryMember:
    def test_a_clone_goes_on_exactly_as_its_donor(self, name: str) -> None:
        donor, clone = make(name, 0), make(name, 1)
        donor.train(3)
        clone.train(5)
        clone.load(donor.state(), donor.hyperparameters)
        assert donor.train(4) == clone.train(4)
        assert equal(donor.state(), clone.state()) and donor.evaluate() == clone.evaluate()

    def test_a_state_is_a_copy(self, name: str) -> None:
        member = make(name)
        member.train(2)
        state = member.state()
        kept = {key: value.copy() for key, value in state["weights"].items()}
        member.train(2)
        assert equal(state["weights"], kept)
        assert state["trained"] == 2 and member.trained == 4

    def test_what_is_loaded_may_be_read_only_and_is_left_alone(self, name: str) -> None:
        donor, clone = make(name), make(name, 1)
        donor.train(2)
        state = donor.state()
        for array in state["weights"].values():
            array.setflags(write=False)
        clone.load(state, donor.hyperparameters)
        clone.train(2)
        assert equal(state["weights"], donor.state()["weights"])

    def test_the_same_seed_trains_the_same(self, name: str) -> None:
        first, second = make(name), make(name)
        assert [first.train(2) for _ in range(3)] == [second.train(2) for _ in range(3)]
        assert equal(first.state(), second.state())

    def test_another_members_turn_in_between_changes_nothing(self, name: str) -> None:
        alone, shared, other = make(name), make(name), make(name, 1)
        alone.train(4)
        for _ in range(4):
            shared.train(1)
            other.train(1)
        assert equal(alone.state()["weights"], shared.state()["weights"])


def test_the_toy_by_hand() -> None:
    # h = (1, 0): a shrinks by 0.98 a step, b stays. After 100: 1.2 - 0.81 * 0.98^200 - 0.81
    toy = Toy({"h0": 1.0, "h1": 0.0})
    toy.train(100)
    assert toy.evaluate()[0] == pytest.approx(1.2 - 0.81 * 0.98**200 - 0.81, abs=1e-12)


def test_training_lowers_the_loss_and_scores_are_minus_the_mean_loss() -> None:
    member = language(learning_rate=1e-2)
    before, _ = member.evaluate()
    assert before == pytest.approx(-math.log(31), abs=0.1)  # an untrained network guesses evenly
    member.train(40)
    score, losses = member.evaluate()
    assert score > before + 0.5
    assert score == pytest.approx(-(losses["code"] + losses["law"]) / 2)


def test_hyperparameters_reach_the_optimiser_and_the_network() -> None:
    member = language(learning_rate=0.5, weight_decay=0.25, beta2=0.9, dropout=0.3, clip=0.1)
    member.train(1)
    group = member.optimiser.param_groups[0]
    assert group["lr"] == pytest.approx(0.5 / 4)  # the first of four warm-up steps
    assert (group["weight_decay"], group["betas"]) == (0.25, (0.9, 0.9))
    assert member.optimiser.param_groups[1]["weight_decay"] == 0.0
    assert member.numbers["dropout"] == 0.3


def test_momentum_reaches_the_optimiser() -> None:
    member = language(kind="sgd", momentum=0.7, weight_decay=0.25)
    member.train(1)
    assert [group["momentum"] for group in member.optimiser.param_groups] == [0.7, 0.7]
    assert [group["weight_decay"] for group in member.optimiser.param_groups] == [0.25, 0.0]
    with pytest.raises(ValueError, match="adamw, sgd, got 'lion'"):
        Recipe(optimiser="lion")


def test_the_rate_by_hand() -> None:
    recipe = Recipe(steps=100, warmup=10, learning_rate=1.0, final_rate=0.1)
    assert rate_at(0, recipe) == pytest.approx(0.1)
    assert rate_at(9, recipe) == pytest.approx(1.0)
    assert rate_at(55, recipe) == pytest.approx(0.55)  # half way down: 0.1 + 0.9 / 2
    assert rate_at(100, recipe) == pytest.approx(0.1)
    assert rate_at(500, recipe) == pytest.approx(0.1)
    # a step of warm-up, then cosines of 0 and of a quarter turn: the last step still trains
    short = Recipe(steps=3, warmup=1, learning_rate=1.0, final_rate=0.0)
    assert [rate_at(step, short) for step in range(4)] == pytest.approx([1.0, 1.0, 0.5, 0.0])


def test_no_token_sees_a_later_one() -> None:
    torch.manual_seed(0)
    model = Decoder(SHAPE)
    initialise(model, torch.Generator().manual_seed(0))
    tokens = torch.randint(31, (2, 12))
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 31
    with torch.no_grad():
        first, second = model(tokens), model(changed)
    assert torch.allclose(first[:, :7], second[:, :7], atol=1e-6)
    assert not torch.allclose(first[:, 7:], second[:, 7:], atol=1e-3)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    cosine, sine = rotary_angles(20, 8)
    q, k = torch.randn(8), torch.randn(8)
    turned = [
        torch.dot(rotate(q, cosine[i], sine[i]), rotate(k, cosine[j], sine[j])).item()
        for i, j in ((5, 2), (9, 6), (19, 16))
    ]
    assert turned == pytest.approx([turned[0]] * 3, abs=1e-4)


def test_the_loss_of_a_row_by_hand() -> None:
    # two classes, logits (0, ln 3): probabilities 1/4 and 3/4. Targets 1 then 0: -ln(3/4) and -ln(1/4)
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(3)], [9.0, 9.0]]])
    loss = token_losses(logits, torch.tensor([[0, 1, 0]]))
    assert loss.item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


def test_label_smoothing_is_the_same_as_a_float_and_as_a_tensor() -> None:
    # probabilities 1/4 and 3/4, target 1, smoothing 0.2: 0.9 * -ln(3/4) + 0.1 * -ln(1/4)
    logits, targets = torch.tensor([[0.0, math.log(3)]]), torch.tensor([1])
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert cross_entropy(logits, targets, 0.2).tolist() == pytest.approx([expected])
    assert cross_entropy(logits, targets, torch.tensor(0.2)).tolist() == pytest.approx([expected])


def test_a_dropout_of_a_tensor_keeps_the_mean() -> None:
    torch.manual_seed(0)
    kept = dropout(torch.ones(100_000), torch.tensor(0.25), training=True)
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert kept.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(dropout(kept, torch.tensor(0.25), training=False), kept)


def test_the_squared_log_partition_by_hand() -> None:
    # one row of two tokens: ln(1 + 3) and ln(2 + 6): the mean of their squares
    logits = torch.tensor([[[0.0, math.log(3)], [math.log(2), math.log(6)]]])
    expected = (math.log(4) ** 2 + math.log(8) ** 2) / 2
    assert squared_log_partition(logits).tolist() == pytest.approx([expected])


def test_each_epoch_has_all_rows_in_another_order() -> None:
    rows = Shuffled({"x": np.arange(6), "y": np.arange(6) * 2}, batch=2, seed=3)
    epochs = []
    for _ in range(2):
        batches = [rows.next() for _ in range(3)]
        assert all(np.array_equal(batch["y"], batch["x"] * 2) for batch in batches)
        epochs.append(np.concatenate([batch["x"] for batch in batches]).tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(6)) and epochs[0] != epochs[1]
    with pytest.raises(ValueError, match=r"\[6, 5\]"):
        Shuffled((np.arange(6), np.arange(5)), batch=2)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width=10, heads=3"):
        DecoderShape(vocabulary=2, sequence_length=8, heads=3, width=10)


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(3,\)"):
        copy_into(torch.zeros(2, 2), np.zeros(3, dtype=np.float32), "weight")


def test_half_precision_survives_the_way_through_numpy() -> None:
    weight = torch.randn(5).to(torch.bfloat16)
    target = torch.zeros(5, dtype=torch.bfloat16)
    copy_into(target, to_arrays({"w": weight})["w"], "w")
    assert torch.equal(weight, target)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_state_whose_tensors_stayed_where_they_were_is_as_good(optimiser: str) -> None:
    donor, first, second = (language(seed, kind=optimiser) for seed in (1, 2, 3))
    donor.train(3)
    place, arrays = donor.state_in_place(), donor.state()
    assert all(isinstance(weight, torch.Tensor) for weight in place["weights"].values())
    donor.train(1)  # a snapshot: what the donor does afterwards does not reach it
    first.load(place, donor.hyperparameters)
    second.load(arrays, donor.hyperparameters)
    first.train(1)  # nor does what a receiver does, whose own the tensors are not
    third = language(4, kind=optimiser)
    third.load(place, donor.hyperparameters)
    assert third.train(4) == second.train(4)
    with pytest.raises(
        ValueError, match=r"the copied array must be .* of torch.float32, but is .* torch.float64"
    ):
        third.load(place | {"weights": {name: x.double() for name, x in place["weights"].items()}}, {})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: state["weights"].pop("norm.weight"), "only one has norm.weight"),
        (
            lambda state: state["weights"].update({"norm.weight": np.ones(16)}),
            "norm.weight: the copied array must be",
        ),
        (lambda state: state["weights"].update({"norm.weight": np.ones(16, np.int32)}), "int32"),
        (lambda state: state["optimiser"].update({"99": state["optimiser"]["0"]}), "of weight 99"),
        (lambda state: state["optimiser"]["0"].update({"momentum_buffer": np.ones(1)}), "must be adamw"),
        (
            lambda state: state["optimiser"]["0"].update({"exp_avg": np.ones((2, 2), np.float32)}),
            "exp_avg of embedding",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_with_its_place(spoil, said: str) -> None:
    donor, receiver = language(1), language(2)
    donor.train(2)
    state = donor.state()
    spoil(state)
    with pytest.raises(ValueError, match=said):
        receiver.load(state, {})
