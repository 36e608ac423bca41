"""The built-in classifier with every objective on logits: scores, stacks, copies, and what it refuses."""

import numpy as np
import pytest
import torch

from shoal.trainables.augmentation import augment, shifted
from shoal.trainables.class_networks import channels_first
from shoal.trainables.class_scores import auroc, macro_f1, share_of_hits
from shoal.trainables.classifier_settings import AUGMENTED, ClassifierSettings
from shoal.trainables.objectives.kinds import OBJECTIVES
from shoal.trainables.row_draws import row_keys
from shoal.trainables.stack import Stack
from tests.helpers.classifiers import classifier, points
from tests.helpers.members import equal

KINDS = [
    "cross_entropy",
    "dice",
    "z_margin",
    "loki",
    "worst_rows",
    "contrastive",
    "domain_heads",
    "shrunk_classes",
    "individual_temperatures",
    "arbitrary_pairs",
    "label_proportions",
    "naive_bayes",
    "robust_rows",
    "future_teacher",
]
ALONE = ("robust_rows", "future_teacher")  # these never train in a stack
BESIDE = ("contrastive", "individual_temperatures", "arbitrary_pairs")  # these train no prediction


def trained(kind: str) -> dict[str, dict]:
    """Return an objective with which a classifier can train: a contrastive one alone gives no prediction."""
    return {"cross_entropy": {}, kind: {}} if kind in BESIDE else {kind: {}}


def searched(kind: str, factor: float) -> dict:
    made = OBJECTIVES[kind]()
    found = {name: getattr(made, name) * factor for name in made.searched}
    return {kind: found} if kind in BESIDE else found


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_and_the_reported_losses_do_not_depend_on_a_searched_number(kind: str) -> None:
    found = []
    for factor in (1.0, 0.5):
        chosen = {"objective": searched(kind, factor), "dropout": 0.4 * factor, "drop": 0.3 * factor}
        member = classifier(trained(kind), 3, chosen)
        found.append((member.evaluate(), member.measure("test")))
    assert found[0] == found[1]


# a stack draws partner classes of its own
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("arbitrary_pairs", *ALONE)])
def test_a_stack_trains_as_its_members_alone(kind: str) -> None:
    def member(place: int):
        return classifier(trained(kind), place, {"objective": searched(kind, 1 - 0.1 * place)})

    alone = [member(place) for place in range(3)]
    stack = Stack([member(place) for place in range(3)])
    losses = stack.train(5)
    for each, loss, stacked in zip(alone, losses, stack.members, strict=True):
        assert each.train(5) == pytest.approx(loss, rel=1e-4, abs=1e-5)
        for name, value in each.module.state_dict().items():
            assert torch.allclose(value, stacked.module.state_dict()[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_goes_on_bit_for_bit_also_with_augmentation(kind: str) -> None:
    augmented = {"noise": 0.2, "drop": 0.1}
    donor, copy = classifier(trained(kind), 1, **augmented), classifier(trained(kind), 2, **augmented)
    donor.train(4)
    copy.load(donor.state(), donor.hyperparameters)
    assert donor.train(3) == copy.train(3)
    assert equal(donor.state(), copy.state())


@pytest.mark.parametrize("kind", ["worst_rows", "shrunk_classes", "individual_temperatures", "naive_bayes"])
def test_a_state_moves_once_a_step_and_not_when_rows_are_judged(kind: str) -> None:
    member = classifier(trained(kind))
    before = {name: value.clone() for name, value in member.module.memory.named_buffers()}
    member.evaluate()
    assert all(torch.equal(before[name], value) for name, value in member.module.memory.named_buffers())
    member.train(1)
    assert any(not torch.equal(before[name], value) for name, value in member.module.memory.named_buffers())


def test_two_objectives_train_together_and_their_weights_are_searched() -> None:
    both = {"cross_entropy": {}, "contrastive": {"weight": 0.5}}
    member = classifier(
        both, hyperparameters={"objective": {"contrastive": {"weight": 2.0, "temperature": 0.2}}}
    )
    assert member.numbers["objective.contrastive.weight"] == 2.0
    first = member.evaluate()[0]
    member.train(40)
    assert member.evaluate()[0] > first and member.evaluate()[0] > 0.8


@pytest.mark.parametrize("network", ["mlp", "none", "conv"])
def test_each_network_learns_and_stacks(network: str) -> None:
    shape = (8, 8) if network == "conv" else (6,)
    chosen = {"learning_rate": 0.2 if network == "none" else 0.02}
    made = [classifier(None, seed, chosen, shape, network=network, width=16) for seed in range(2)]
    stack = Stack(made)
    stack.train(40)
    assert min(score for score, _ in stack.evaluate()) > 0.8


def test_the_first_prediction_is_the_prior() -> None:
    member = classifier(bias="prior", head="linear")
    rows = {name: torch.from_numpy(each) for name, each in points(7).items()}
    chances = member.values(member.module, rows).softmax(dim=-1).mean(dim=0)
    assert chances.tolist() == pytest.approx([0.2, 0.3, 0.5], abs=1e-6)


def test_a_margin_that_cannot_be_reached_is_refused_when_the_member_is_made() -> None:
    with pytest.raises(ValueError, match="objective: z_margin: margin must be below"):
        classifier({"z_margin": {"margin": 1.5}})


def test_an_objective_that_trains_no_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="contrastive trains no prediction; add one that does"):
        classifier({"contrastive": {}})


def test_scores_of_five_rows_by_hand() -> None:
    values = torch.tensor([[2.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 3, 0], [0, 0, 1]])
    labels, every = torch.tensor([0, 1, 1, 1, 2]), torch.ones(5).double()
    assert share_of_hits(values, labels, every).item() == pytest.approx(4 / 5)
    # F1: of class 0 2 * 1 / (1 + 2), of class 1 2 * 2 / (3 + 2), of class 2 1
    assert macro_f1(values, labels, every).item() == pytest.approx((2 / 3 + 4 / 5 + 1) / 3)
    without = torch.tensor([1.0, 1, 0, 1, 1]).double()
    assert macro_f1(values, labels, without).item() == 1.0
    assert share_of_hits(values, labels, without).item() == 1.0


def test_scores_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(90, 4)).round(1), rng.integers(4, size=90)
    every = torch.ones(90).double()
    chances = torch.from_numpy(values).softmax(dim=-1).numpy()
    ours = auroc(torch.from_numpy(values), torch.from_numpy(labels), every).item()
    assert ours == pytest.approx(metrics.roc_auc_score(labels, chances, multi_class="ovr"), abs=1e-9)
    found = macro_f1(torch.from_numpy(values), torch.from_numpy(labels), every).item()
    assert found == pytest.approx(metrics.f1_score(labels, values.argmax(axis=1), average="macro"), abs=1e-9)


def test_the_worst_group_counts_and_groups_without_labels_do_not() -> None:
    member = classifier(score="worst_group")
    member.train(10)
    found = member.measure()
    assert member.evaluate()[0] == min(found["accuracy_one"], found["accuracy_two"]) == found["worst_group"]
    rows = member.held_out["validation"]["two"]
    member.held_out = {
        "validation": {**member.held_out["validation"], "two": rows | {"unlabelled": rows["label"] * 0 + 1}}
    }
    assert member.evaluate()[0] == found["accuracy_one"]


def test_images_move_by_whole_pixels_and_what_comes_in_is_zero() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4).expand(50, 1, 4, 4) + 1
    moved = shifted(image, torch.rand(50, generator=torch.Generator().manual_seed(0)) - 0.5, 3)
    seen = {tuple(row) for row in moved[:, 0, 0].tolist()}
    assert (1.0, 2.0, 3.0, 4.0) in seen and (0.0, 1.0, 2.0, 3.0) in seen and (2.0, 3.0, 4.0, 0.0) in seen
    assert all(len(set(row) - {0.0}) >= 2 for row in seen)


def test_nothing_is_augmented_at_rates_of_zero() -> None:
    x = torch.randn(3, 1, 4, 4)
    nothing = dict.fromkeys(AUGMENTED, 0.0)
    assert augment(x, nothing, row_keys(x)) is x
    assert augment(x, nothing | {"flip": 0.999999}, row_keys(x)).equal(x.flip(-1))


def test_images_come_with_channels_in_any_place() -> None:
    assert channels_first(torch.zeros(2, 5, 6)).shape == (2, 1, 5, 6)
    assert channels_first(torch.zeros(2, 5, 6, 3)).shape == (2, 3, 5, 6)
    assert channels_first(torch.zeros(2, 3, 5, 6)).shape == (2, 3, 5, 6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"network": "resnet"}, "network must be one of mlp, conv, none, timm, but got resnet"),
        ({"width": 0}, "width must be at least 1"),
        ({"drop": 1.0}, "drop must be at least 0 and below 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ClassifierSettings(**given)


def test_scores_are_those_of_torchmetrics() -> None:
    from torchmetrics.functional.classification import multiclass_auroc, multiclass_f1_score

    torch.manual_seed(0)
    values, labels = torch.randn(200, 4), torch.randint(4, (200,))
    weights = torch.ones(200).double()
    assert macro_f1(values, labels, weights).item() == pytest.approx(
        multiclass_f1_score(values, labels, 4).item(), abs=1e-6
    )
    chances = values.softmax(dim=-1)
    assert auroc(values, labels, weights).item() == pytest.approx(
        multiclass_auroc(chances, labels, 4).item(), abs=1e-6
    )
    # rows of weight 0 are as if they were not there
    half = (torch.arange(200) % 2).double()
    assert auroc(values, labels, half) == pytest.approx(auroc(values[1::2], labels[1::2], weights[1::2]))


def test_a_classifier_that_has_diverged_has_no_score() -> None:
    members = [classifier(seed=seed) for seed in range(2)]
    for weight in members[0].module.parameters():
        weight.data.fill_(float("nan"))
    assert np.isnan(members[0].evaluate()[0]) and np.isfinite(members[1].evaluate()[0])
    (lost, _), (kept, _) = Stack(members).evaluate_together("validation")
    assert np.isnan(lost) and np.isfinite(kept)


def test_a_member_that_draws_no_weight_at_all_learns_nothing() -> None:
    chosen = {"objective": {"cross_entropy": {"weight": 0.0}, "dice": {"weight": 0}}}
    member = classifier({"cross_entropy": {}, "dice": {}}, 0, chosen)
    assert member.train(1) == 0.0 and np.isfinite(member.evaluate()[0])
