"""Small cases of objectives with a state, with negatives of their own, and of bags, worked by hand."""

import math

import pytest
import torch

from shoal.trainables.objectives.adore import Adore
from shoal.trainables.objectives.arbitrary_pairs import ArbitraryPairs, gated_cosines
from shoal.trainables.objectives.contrastive import Contrastive
from shoal.trainables.objectives.cross_entropy import CrossEntropy
from shoal.trainables.objectives.dice import Dice
from shoal.trainables.objectives.dpo import DPO
from shoal.trainables.objectives.hard_negatives import HardNegatives, TeacherScores, mixtures
from shoal.trainables.objectives.individual_temperatures import IndividualTemperatures
from shoal.trainables.objectives.interface import Sizes
from shoal.trainables.objectives.inverted_hinge import hinge
from shoal.trainables.objectives.label_proportions import LabelProportions
from shoal.trainables.objectives.naive_bayes import NaiveBayes, head_of, merged_sums, sums_by_class
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.searched_numbers import cross_entropy
from tests.helpers.objectives import given, numbers_of

F64 = torch.float64


def test_a_temperature_falls_where_weights_are_too_equal() -> None:
    made = IndividualTemperatures(nats=0.4)
    cosines, every = torch.tensor([[0.5, 0.0]], dtype=F64), torch.ones(1, 2, dtype=torch.bool)
    heat, level = torch.tensor([0.5], dtype=F64), torch.zeros(1, dtype=F64)
    loss, level, slope = made.side(cosines, every, heat, level, torch.tensor([True]), numbers_of(made))
    # the mean of e^1 and 1 is 1.8591, the weights .731 and .269, .1109 nats from equal ones
    assert level.exp().item() == pytest.approx(1.8591, abs=1e-4)
    assert loss.item() == pytest.approx(0.731 * 0.5, abs=1e-3)
    assert slope.item() == pytest.approx(0.2891, abs=1e-4)


def test_temperatures_settle_where_the_weights_are_so_many_nats_from_equal_ones() -> None:
    draws = torch.Generator().manual_seed(0)
    out = {name: torch.randn(6, 4, generator=draws, dtype=F64) for name in ("embedding", "view")}
    made = IndividualTemperatures(nats=0.3, rate=1.0, lowest=0.01, highest=5.0, rows=6)
    state = {name: value.double() for name, value in made.start(Sizes()).items()}
    for _ in range(3000):
        _, signals = made.loss(out, {"row": torch.arange(6)}, numbers_of(made), state)
        state = dict(made.after(state, signals, numbers_of(made)))
    one, other = (torch.nn.functional.normalize(out[name], dim=1) for name in ("embedding", "view"))
    apart = []
    for a, b in ((one, other), (other, one)):
        cosines = torch.cat([a @ b.T, a @ a.T], dim=1)
        keep = ~torch.eye(6, dtype=torch.bool).repeat(1, 2)
        weights = (cosines / state["heat"][:, None]).masked_fill(~keep, -torch.inf).softmax(dim=1)
        apart.append((weights * (weights.clamp(min=1e-300) * 10).log()).sum(dim=1))
    assert torch.allclose((apart[0] + apart[1]) / 2, torch.full((6,), 0.3, dtype=F64), atol=2e-3)


def test_with_equal_temperatures_the_gradient_is_that_of_the_decoupled_loss_times_the_temperature() -> None:
    slopes = []
    for made in (
        IndividualTemperatures(first=0.3, rate=1.0, rows=6),
        Contrastive(form="decoupled", blocks="all", temperature=0.3, scaled=True),
    ):
        out, batch = given()
        leaf = out["embedding"].requires_grad_()
        state = {name: value.double() for name, value in made.start(Sizes()).items()}
        made.loss(out, batch | {"row": torch.arange(6)}, numbers_of(made), state)[0].sum().backward()
        slopes.append(leaf.grad)
    assert torch.allclose(*slopes, atol=1e-9)


def test_nats_that_no_batch_can_reach_are_refused() -> None:
    # 128 rows in two views have 254 negatives: log 254 = 5.54
    assert "nats must be below log(negatives) = 5.537" in IndividualTemperatures(nats=6).misfit(Sizes(rows=128))
    assert not IndividualTemperatures(nats=5.5).misfit(Sizes(rows=128))


def test_counts_of_two_parts_are_those_of_the_whole() -> None:
    features, label = given(rows=40)[0]["features"], torch.arange(40) % 3
    whole = sums_by_class(features, label, 4)
    merged = merged_sums(
        *(sums_by_class(features[each], label[each], 4) for each in (slice(13), slice(13, 40)))
    )
    assert all(torch.allclose(merged[name], value) for name, value in whole.items())
    # the fourth class has no row, and nothing is NaN
    slopes, offsets = head_of(merged, 1e-3)
    assert slopes.isfinite().all() and offsets[3] == pytest.approx(math.log(1e-6))


def test_the_counted_head_predicts_as_the_densities_do() -> None:
    features, label = given(rows=30)[0]["features"], torch.arange(30) % 3
    sums = sums_by_class(features, label, 3)
    slopes, offsets = head_of(sums, 0.1)
    variance = sums["squares"].sum(dim=0) / 30 + 0.1
    densities = -0.5 * ((features[:, None] - sums["mean"]).square() / variance).sum(dim=-1) + math.log(1 / 3)
    found = features @ slopes.T + offsets
    assert torch.allclose(found - found[:, :1], densities - densities[:, :1])


def test_a_counted_head_has_no_gradient_but_what_is_below_it_has() -> None:
    made, (out, batch) = NaiveBayes(), given()
    state = {name: value.double() for name, value in made.start(Sizes(classes=4, features=5)).items()}
    for _ in range(2):
        leaf = out["features"].detach().requires_grad_()
        losses, signals = made.loss(out | {"features": leaf}, batch, numbers_of(made), state)
        losses.sum().backward()
        state = dict(made.after(state, signals, numbers_of(made)))
    assert leaf.grad.abs().sum() > 0
    assert state["count"].sum().item() == 12


def test_mixed_negatives_are_nearer_than_their_parents() -> None:
    # cosines .6 and .6 with the query and .5 with one another: .6 / sqrt(.75) = .693
    hard = torch.tensor([[[0.6, 0.8, 0.0], [0.6, (0.5 - 0.36) / 0.8, 0.0]]], dtype=F64)
    hard[0, 1, 2] = (1 - hard[0, 1].square().sum()).sqrt()
    mixed = mixtures(hard, torch.full((1, 2), 0.5, dtype=F64))
    assert mixed[0, 0, 0].item() == pytest.approx(0.693, abs=1e-3)
    whole = mixtures(hard, torch.tensor([[1.0, 0.0]], dtype=F64))
    assert torch.allclose(whole[0, 0], hard[0, 0]) and torch.allclose(whole[0, 1], hard[0, 0])


def test_hard_negatives_of_one_query_by_hand() -> None:
    made = HardNegatives(temperature=0.5, mixed=2.0)
    one = torch.tensor([[1.0, 0.0]], dtype=F64)
    out = {
        "embedding": one,
        "view": torch.tensor([[0.8, 0.6]], dtype=F64),
        "negatives": torch.tensor([[[0.6, 0.8], [0.0, 1.0]]], dtype=F64),
        "draws": torch.ones(1, 2, dtype=F64),
    }
    # a share of 1 leaves each negative as it is: they stand once, and twice as mixtures
    below = 3 * (math.exp(1.2) + 1)
    loss, _ = made.loss(out, {"there": torch.ones(1, 2)}, numbers_of(made), {})
    assert loss.item() == pytest.approx(math.log(math.exp(1.6) + below) - 1.6, abs=1e-9)
    # where only the first exists there is no mixture
    loss, _ = made.loss(out, {"there": torch.tensor([[1.0, 0.0]])}, numbers_of(made), {})
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.4)), abs=1e-9)


def test_without_hard_negatives_and_gamma_it_is_the_contrastive_loss() -> None:
    out, batch = given()
    losses, _ = HardNegatives(temperature=0.3).loss(
        out, batch | {"there": torch.zeros(6, 3)}, numbers_of(HardNegatives(temperature=0.3)), {}
    )
    made = Contrastive(temperature=0.3)
    one, other = (torch.nn.functional.normalize(out[name], dim=1) for name in ("embedding", "view"))
    plain = made.direction(one, other, ~torch.eye(6, dtype=torch.bool), numbers_of(made))
    assert torch.allclose(losses, plain)


def test_a_student_with_the_scores_of_its_teacher_has_no_loss() -> None:
    made, (out, batch) = TeacherScores(temperature=0.5), given()
    query, positive, hard = (
        torch.nn.functional.normalize(out[name], dim=-1) for name in ("embedding", "view", "negatives")
    )
    scores = (query[:, None] * torch.cat([positive[:, None], hard], dim=1)).sum(dim=-1)
    losses, _ = made.loss(out, batch | {"teacher": scores}, numbers_of(made), {})
    assert torch.allclose(losses, torch.zeros(6, dtype=F64), atol=1e-12)
    # two candidates, even scores, a teacher of 3 to 1: the divergence of (.75, .25) from halves, times .25
    out = {"embedding": torch.eye(2, dtype=F64)[:1], "view": torch.zeros(1, 2, dtype=F64) + torch.eye(2)[1]}
    out["negatives"] = -out["view"][:, None]
    told = {"there": torch.ones(1, 1), "teacher": torch.tensor([[0.5 * math.log(3), 0.0]], dtype=F64)}
    wanted = 0.25 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert made.loss(out, told, numbers_of(made), {})[0].item() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("right", "cut", "wanted"), [(2, 200, 0.8184), (2, 2, 1.3918), (0, 200, 0.1206)])
def test_found_documents_weigh_by_the_change_of_reciprocal_ranks(right: int, cut: int, wanted: float) -> None:
    made = Adore(scale=1.0, cut=cut)
    found = torch.tensor([[3.0, 2.0, 1.0]], dtype=F64)
    loss, _ = made.loss({"found": found}, {"document": torch.tensor([right])}, numbers_of(made), {})
    assert loss.item() == pytest.approx(wanted, abs=1e-4)


def test_a_search_without_a_place_that_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="cut must be at least 1, or every weight is 0 and nothing trains"):
        Adore(cut=0)


def test_a_right_document_that_is_not_found_stands_behind_all_found_ones() -> None:
    made = Adore(scale=1.0, depth=1)
    found = torch.tensor([[3.0, 2.0, 1.0]], dtype=F64)
    loss, _ = made.loss({"found": found}, {"document": torch.tensor([2])}, numbers_of(made), {})
    assert loss.item() == pytest.approx(0.5 * math.log1p(math.exp(2)), abs=1e-9)


def test_a_gate_of_ones_is_the_cosine_and_a_shut_place_does_not_count() -> None:
    out, _ = given()
    one, other = out["embedding"], out["view"]
    plain = torch.nn.functional.normalize(one, dim=1) @ torch.nn.functional.normalize(other, dim=1).T
    assert torch.allclose(gated_cosines(one, other, torch.ones_like(one)), plain)
    gate = torch.ones_like(one)
    gate[:, 0] = 0
    assert torch.allclose(gated_cosines(one, other, gate), gated_cosines(one[:, 1:], other[:, 1:], gate[:, 1:]))


def test_pairs_of_the_same_class_are_supervised_contrast() -> None:
    made = ArbitraryPairs(temperature=1.0)
    view = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=F64)
    out = {"embedding": view, "view": view, "gate": torch.ones(3, 2, dtype=F64)}
    label = torch.tensor([0, 1, 0])
    losses, _ = made.loss(out, {"label": label, "partner": label}, numbers_of(made), {})
    # the first row: positives at cosines 1 and .6, one negative at 0
    wanted = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-0.6))) / 2
    assert losses[0].item() == pytest.approx(wanted, abs=1e-9)
    # with the other class as partner there is no third class, so no negative
    losses, _ = made.loss(out, {"label": label, "partner": 1 - label}, numbers_of(made), {})
    assert losses.tolist() == [0.0, 0.0, 0.0]


def test_a_bag_has_one_loss_of_its_rows_mean_prediction() -> None:
    chances = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]], dtype=F64)
    batch = {
        "bag": torch.tensor([4, 4, 7]),
        "shares": torch.tensor([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]], dtype=F64),
    }
    made = LabelProportions()
    losses, _ = made.loss({"logits": chances.log()}, batch, numbers_of(made), {})
    bag = -0.5 * math.log(0.6) - 0.5 * math.log(0.4)
    assert losses.tolist() == pytest.approx([bag, bag, math.log(2)])


def test_a_balanced_loss_has_the_size_of_the_first_and_keeps_its_direction() -> None:
    both = weighted_sum([("cross_entropy", CrossEntropy()), ("dice", Dice(balanced=True, weight=0.5))])
    out, batch = given()
    state = both.start(Sizes(classes=4))
    losses, signals = both.loss(out, batch, both.numbers({}), state)
    first = torch.nn.functional.cross_entropy(out["logits"], batch["label"])
    # the first batch is its own running size: the whole is 1.5 times the first loss
    assert losses.mean().item() == pytest.approx(1.5 * first.item(), rel=1e-9)
    state = both.after(state, signals, both.numbers({}))
    assert state["cross_entropy-size"].item() == pytest.approx(first.item())
    # a batch of twice the loss moves the size by a tenth of the way
    _, signals = both.loss(out, batch, both.numbers({}), state | {"cross_entropy-size": first / 2})
    assert signals["cross_entropy-size"].item() == pytest.approx(0.55 * first.item())


def test_the_inverted_hinge_has_the_gradient_of_the_sheet_and_stops_by_itself() -> None:
    logits = torch.randn(1, 5, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    target = torch.tensor([2])
    chances = logits.detach().softmax(dim=-1)[0]
    value = hinge(logits, target)
    best = chances.clone().index_fill(0, target, -1).argmax().item()
    own, most = chances[2].item(), chances[best].item()
    assert value.item() == pytest.approx(1 + own - most, abs=1e-6) and 0 <= value.item() <= 2
    value.sum().backward()
    wanted = [own * (most - own)] * 5
    for place in range(5):
        rest = chances[place].item() * (most - own)
        wanted[place] = (
            own * (1 - own + most) if place == 2 else -most * (1 - most + own) if place == best else rest
        )
    assert logits.grad[0].tolist() == pytest.approx(wanted, abs=1e-6)
    # p = .01 where another has .6: a slope of .016, where gradient ascent still has .99
    sure = torch.tensor([[0.01, 0.6, 0.39]]).log().requires_grad_()
    hinge(sure, torch.tensor([0])).sum().backward()
    assert sure.grad[0, 0].item() == pytest.approx(0.0159, abs=1e-4)


def test_forgetting_by_negative_preferences() -> None:
    out = {"chosen": -1.0, "rejected": -3.0, "chosen_reference": -1.0, "rejected_reference": -5.0}
    told = {name: torch.tensor([value], dtype=F64) for name, value in out.items()}
    told |= {"chosen_length": torch.ones(1), "rejected_length": torch.ones(1)}
    made = DPO(form="negative", beta=0.1)
    # the worse answer has gained 2 nats: 2 / .1 * log(1 + e^.2)
    wanted = 20 * math.log1p(math.exp(0.2))
    assert made.loss(told, {}, numbers_of(made), {})[0].item() == pytest.approx(wanted, abs=1e-9)


def test_losses_of_tokens_have_the_gradients_of_finite_differences() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 7, generator=draws, dtype=torch.float64).requires_grad_()
    targets = torch.randint(7, (3, 4), generator=draws)

    def smoothed(logits: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits.flatten(end_dim=1), targets.flatten(), 0.1)

    assert torch.autograd.gradcheck(smoothed, (logits,), eps=1e-6, atol=1e-6, rtol=1e-6)
