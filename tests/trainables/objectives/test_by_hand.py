"""Small cases of each objective worked by hand."""

import math

import pytest
import torch

from shoal.trainables.objectives.contrastive import Contrastive
from shoal.trainables.objectives.dice import Dice
from shoal.trainables.objectives.domain_heads import DomainHeads
from shoal.trainables.objectives.dpo import DPO
from shoal.trainables.objectives.guided import Guided
from shoal.trainables.objectives.interface import Sizes
from shoal.trainables.objectives.loki import Loki
from shoal.trainables.objectives.shrunk_classes import ShrunkClasses, aligned, shrink
from shoal.trainables.objectives.star import Star
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.objectives.worst_rows import WorstRows
from shoal.trainables.objectives.z_margin import ZMargin
from tests.helpers.objectives import numbers_of

F64 = torch.float64
CHANCES = torch.tensor([[0.9], [0.6], [0.2], [0.1], [0.05]], dtype=F64)
LABELS = torch.tensor([[1], [1], [0], [0], [0]], dtype=F64)


def dice(**given) -> float:
    made = Dice(**given)
    return made.of(CHANCES, LABELS, numbers_of(made)).mean().item()


def test_dice_of_five_rows() -> None:
    # batch: 1 - (2 * 1.5 + 1) / (1.85 + 2 + 1)
    assert dice(form="batch", alpha=0.0) == pytest.approx(1 - 4 / 4.85, abs=1e-9)
    # squares below: 1 - 4 / (1.2225 + 2 + 1)
    assert dice(form="batch", alpha=0.0, squared=True) == pytest.approx(0.0527, abs=5e-5)
    assert dice(form="batch", alpha=1.0) == pytest.approx(0.5424, abs=5e-5)
    assert dice(form="rows", alpha=0.0) == pytest.approx(0.0987, abs=5e-5)


def test_dice_without_power_and_smoothing_is_one_minus_soft_f1() -> None:
    assert 1 - dice(form="batch", alpha=0.0, smooth=0.0) == pytest.approx(2 * 1.5 / (1.85 + 2), abs=1e-9)


def raw_dice(alpha: float, chance: float) -> float:
    made = Dice(alpha=0.1, detach=False)
    one = torch.ones(1, 1, dtype=F64)
    return made.of(torch.full((1, 1), chance, dtype=F64), one, {"alpha": alpha, "smooth": 1.0}).item()


def test_the_raw_dice_of_a_right_answer_rises_above_its_peak() -> None:
    assert raw_dice(1.0, 0.5) == pytest.approx(0.333, abs=5e-4)
    assert raw_dice(1.0, 0.99) == pytest.approx(0.493, abs=5e-4)
    # the peak of (1 - q)^alpha q lies at 1 / (1 + alpha): the loss is least there
    peak = 1 / 1.1
    assert raw_dice(0.1, peak) < min(raw_dice(0.1, peak - 0.01), raw_dice(0.1, peak + 0.01))
    with pytest.raises(ValueError, match=r"alpha must be at most 0\.1 with detach: false"):
        Dice(alpha=0.5, detach=False)


def test_with_a_detached_power_a_right_answer_never_gets_worse() -> None:
    chances = torch.linspace(0.01, 0.99, 50, dtype=F64)[:, None].requires_grad_()
    losses = Dice(alpha=1.0).of(chances, torch.ones(50, 1, dtype=F64), {"alpha": 1.0, "smooth": 1.0})
    losses.sum().backward()
    assert (chances.grad <= 0).all()


def z_margin(logits: list[float], **given) -> float:
    made = ZMargin(**given)
    out = {"logits": torch.tensor([logits], dtype=F64)}
    return made.loss(out, {"label": torch.tensor([len(logits) - 1])}, numbers_of(made), {})[0].item()


def test_the_margin_on_a_standardised_logit_ignores_scale_and_shift() -> None:
    # z of the third is 1 / sqrt(2 / 3) = 1.2247; softplus(1 - 1.2247) = 0.58708
    assert z_margin([1.0, 2.0, 3.0]) == pytest.approx(0.58708, abs=1e-5)
    assert z_margin([12.0, 17.0, 22.0]) == pytest.approx(0.58708, abs=1e-5)
    # a perfect classifier of 10 classes has z = 3: softplus(10 - 3)
    assert z_margin([0.0] * 9 + [50.0], margin=10.0) == pytest.approx(7.0009, abs=1e-4)


def test_the_margin_refuses_two_classes_and_a_margin_that_cannot_be_reached() -> None:
    assert "at least 3 classes" in ZMargin().misfit(Sizes(classes=2))
    assert "margin must be below sqrt(classes - 1) = 3" in ZMargin(margin=3.0).misfit(Sizes(classes=10))
    assert not ZMargin(margin=2.9).misfit(Sizes(classes=10))


def contrast(positive: float, negatives: list[float], **given) -> float:
    made = Contrastive(**given)
    below = torch.tensor([negatives], dtype=F64)
    return made.of(
        torch.tensor([positive], dtype=F64), below, torch.ones_like(below).bool(), numbers_of(made)
    ).item()


def test_coupled_and_decoupled_losses_of_one_anchor() -> None:
    negatives = [0.3, 0.1, -0.2]
    below = math.log(sum(math.exp(each / 0.1) for each in negatives))
    assert contrast(0.8, negatives, form="decoupled") == pytest.approx(below - 8, abs=1e-9)
    assert contrast(0.8, negatives, form="decoupled") == pytest.approx(-4.867, abs=1e-3)
    assert contrast(0.8, negatives) == pytest.approx(0.0077, abs=1e-4)
    assert contrast(0.8, negatives, scaled=True) == pytest.approx(0.1 * contrast(0.8, negatives), abs=1e-12)
    # p = 0.9: weight (1 - 0.9)^0.5 = 0.316 times -log 0.9
    nine = 0.1 * math.log(9)
    assert contrast(nine, [0.0], gamma=0.5) == pytest.approx(0.316228 * -math.log(0.9), abs=1e-6)


def test_the_coupled_gradient_is_the_decoupled_one_times_what_is_left_for_negatives() -> None:
    slopes = []
    for form in ("coupled", "decoupled"):
        made, top = Contrastive(form=form), torch.tensor([0.8], dtype=F64, requires_grad=True)
        below = torch.tensor([[0.3, 0.1, -0.2]], dtype=F64)
        made.of(top, below, torch.ones_like(below).bool(), numbers_of(made)).sum().backward()
        slopes.append(top.grad.item())
    assert slopes[0] / slopes[1] == pytest.approx(0.0076, abs=1e-4)


def test_close_positives_weigh_less_and_the_weights_have_the_mean_one() -> None:
    weights = Contrastive(form="decoupled").ease(torch.tensor([0.9, 0.5, 0.1, 0.4], dtype=F64), 0.5)
    assert weights.mean().item() == pytest.approx(1.0, abs=1e-9)
    assert weights.argmin() == 0 and weights.argmax() == 2


def test_a_row_of_the_same_text_is_no_negative() -> None:
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=F64)
    out, made = {"embedding": one, "view": one}, Contrastive(temperature=0.5)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    plain, _ = made.loss(out, {}, numbers_of(made), {})
    told, _ = made.loss(out, {"same": same}, numbers_of(made), {})
    # cosines 1 and 0 over 0.5: log(1 + e^(0 - 2)) with one negative, log(1 + 1 + e^-2) with its double
    assert told[0].item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-9)
    assert plain[0].item() == pytest.approx(math.log(2 + math.exp(-2)), abs=1e-9)


def test_loki_predicts_a_class_in_the_middle() -> None:
    made = Loki(temperature=1.0)
    costs = made.costs(torch.tensor([[0.5, 0.0, 0.5], [0.8, 0.0, 0.2]], dtype=F64), 2.0)
    # squared distances on a line are 0, 1, 4; the largest, 2, is scaled to 1
    assert (4 * costs).tolist() == [pytest.approx([2.0, 1.0, 2.0]), pytest.approx([0.8, 1.0, 3.2])]
    assert made.predict({"logits": torch.tensor([[0.5, -90.0, 0.5]])}, {}).argmax() == 1
    assert "a row for each of 5 classes" in Loki(distances=((0, 1), (1, 0))).misfit(Sizes(classes=5))
    with pytest.raises(ValueError, match="distances must be a square"):
        Loki(distances=((0, 1), (1, 2)))


def test_the_worst_rows_weigh_as_their_softmax() -> None:
    # cross-entropies of two equal logits shifted: losses .1, .2, .3, 2
    wanted = torch.tensor([0.1, 0.2, 0.3, 2.0], dtype=F64)
    logits = torch.stack([torch.zeros(4, dtype=F64), (wanted.exp() - 1).log()], dim=1)
    for radius, share in ((10.0, 0.285), (1.0, 0.668), (0.5, 0.923), (0.1, 1.0)):
        made = WorstRows(radius=radius)
        state = made.start(Sizes())
        batch = {"label": torch.zeros(4, dtype=torch.long)}
        losses, _ = made.loss({"logits": logits}, batch, numbers_of(made), state)
        weights = losses / wanted
        assert (weights[3] / weights.sum()).item() == pytest.approx(share, abs=1e-3)
        # the first batch is its own average: the mean weight is 1
        assert weights.mean().item() == pytest.approx(1.0, abs=1e-6)


def test_the_level_of_the_worst_rows_begins_at_the_first_value_and_moves() -> None:
    made = WorstRows(radius=1.0, rate=0.5)
    zero = {"label": torch.zeros(2, dtype=torch.long)}
    state = made.start(Sizes())
    for logit, level in ((0.0, math.log(2)), (50.0, math.log(0.5 * 2 + 0.5 * 1))):
        logits = torch.tensor([[logit, 0.0]] * 2, dtype=F64)
        _, signals = made.loss({"logits": logits}, zero, numbers_of(made), state)
        state = made.after(state, signals, numbers_of(made))
        # e^loss is 2 for equal logits, and 1 for a sure right one
        assert state["level"].item() == pytest.approx(level, abs=1e-6)


def test_surer_heads_weigh_more_in_a_prediction() -> None:
    # two classes: chances .9 have the entropy .325, chances .5 have .693
    chances = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]], dtype=F64)
    for power, share in ((1.0, 0.681), (3.0, 0.906)):
        mixed = DomainHeads(entropy_power=power).mixture(chances)[0, 0].item()
        assert (mixed - 0.5) / 0.4 == pytest.approx(share, abs=1e-3)


def test_a_row_trains_its_own_head_and_the_common_one() -> None:
    made = DomainHeads(common=0.25)
    heads = torch.zeros(1, 2, 2, dtype=F64)
    heads[0, 1, 0] = math.log(3)  # the second group's head gives the label 3/4
    batch = {"label": torch.tensor([0]), "group": torch.tensor([1])}
    loss, _ = made.loss({"logits": torch.zeros(1, 2, dtype=F64), "heads": heads}, batch, numbers_of(made), {})
    assert loss.item() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(2), abs=1e-9)


def test_classes_shrink_until_the_best_is_sure() -> None:
    chances = torch.tensor([[0.5, 0.44, 0.02, 0.02, 0.02], [0.5, 0.3, 0.12, 0.05, 0.03]], dtype=F64)
    kept, found = shrink(chances, 0.95)
    # without ranks 2 to 4: .5 / .52 = .9615; the second row's best is .5 / .53 = .943
    assert found.tolist() == [True, False]
    assert kept[0].tolist() == [True, False, False, False, True]
    mixed, _ = shrink(chances[:, [3, 1, 0, 2, 4]], 0.95)
    assert mixed[0].sum() == 2 and mixed[0][2]


def test_shrinking_is_what_a_loop_over_ranks_finds() -> None:
    draws = torch.randn(300, 6, generator=torch.Generator().manual_seed(0), dtype=F64).mul(3).softmax(dim=-1)
    kept, found = shrink(draws, 0.9)
    for row, chances in enumerate(draws):
        order = chances.argsort(descending=True).tolist()
        stays = None
        for leaving in range(2, 6):
            rest = order[leaving:]
            if stays is None and chances[order[0]] / (chances[order[0]] + chances[rest].sum()) >= 0.9:
                stays = {order[0], *rest}
        assert found[row].item() == (stays is not None)
        if stays is not None:
            assert set(kept[row].nonzero()[:, 0].tolist()) == stays


def test_predictions_are_aligned_by_the_means_of_earlier_batches() -> None:
    means = torch.tensor([[0.8, 0.2], [0.0, 0.0]], dtype=F64)
    found = aligned(torch.tensor([[0.5, 0.5]], dtype=F64), means)
    # .5 / .8 against .5 / .2
    assert found[0].tolist() == pytest.approx([0.2, 0.8])


def test_the_share_of_sure_rows_goes_on_and_a_batch_without_unlabelled_rows_leaves_it() -> None:
    made = ShrunkClasses(threshold=0.6, rate=0.5)
    out = {name: torch.tensor([[9.0, 0, 0], [0, 0, 0]], dtype=F64) for name in ("logits", "plain", "auxiliary")}
    state = {name: value.double() for name, value in made.start(Sizes(classes=3)).items()}
    label = torch.tensor([0, 7])  # the label of an unlabelled row may be anything
    _, signals = made.loss(out, {"label": label, "unlabelled": torch.tensor([1, 1])}, numbers_of(made), state)
    state = dict(made.after(state, signals, numbers_of(made)))
    assert state["sure"].item() == 0.5 and state["seen"].item() == 1
    batch = {"label": torch.tensor([0, 1]), "unlabelled": torch.tensor([0, 0])}
    losses, signals = made.loss(out, batch, numbers_of(made), state)
    assert losses[1].item() == pytest.approx(math.log(3))
    after = made.after(state, signals, numbers_of(made))
    assert all(torch.equal(after[name], value) for name, value in state.items())


def test_a_list_is_the_weighted_sum_with_numbers_by_kind() -> None:
    both = weighted_sum([("dice", Dice(weight=0.5)), ("z_margin", ZMargin())])
    out, batch = {"logits": torch.tensor([[1.0, 2.0, 3.0]], dtype=F64)}, {"label": torch.tensor([2])}
    numbers = both.numbers({"z_margin": {"weight": 2.0}})
    assert numbers["objective.z_margin.weight"] == 2.0 and numbers["objective.dice.weight"] == 0.5
    parts = [each.loss(out, batch, numbers_of(each), {})[0] for each in both.terms.values()]
    total, _ = both.loss(out, batch, numbers, {})
    assert torch.allclose(total, 0.5 * parts[0] + 2.0 * parts[1])
    assert weighted_sum([("dice", Dice())]).numbers({"alpha": 0.05})["objective.dice.alpha"] == 0.05


def dpo(chosen: float, rejected: float, **given) -> float:
    """Return the loss of a pair that has gained so much; its answers have 4 and 2 tokens."""
    made = DPO(**given)
    out = {"chosen": -10.0 + chosen, "chosen_reference": -10.0, "chosen_length": 4.0}
    out |= {"rejected": -8.0 + rejected, "rejected_reference": -8.0, "rejected_length": 2.0}
    told = {name: torch.tensor([value], dtype=F64) for name, value in out.items()}
    return made.loss(told, {}, numbers_of(made), {})[0].item()


def test_dpo_of_one_pair() -> None:
    # a margin of 2 at beta 0.1: -log sigmoid(0.2)
    assert dpo(1.5, -0.5) == pytest.approx(0.5981, abs=1e-4)
    assert dpo(0.0, 0.0) == pytest.approx(math.log(2))
    assert dpo(1.5, -0.5, form="hinge") == pytest.approx(0.8)
    # 1.5 / 4 + 0.5 / 2 a token, against 1 / 0.2
    assert dpo(1.5, -0.5, form="squared") == pytest.approx((0.625 - 5) ** 2)
    assert dpo(0.0, 0.0, sft=0.5) == pytest.approx(math.log(2) + 0.5 * 10 / 4)
    assert dpo(1.5, -0.5, flipped=0.2) == pytest.approx(0.8 * 0.59814 + 0.2 * 0.79814, abs=1e-4)


def test_the_slope_of_dpo_is_the_chance_that_the_pair_is_the_wrong_way_round() -> None:
    step = 1e-5
    slope = (dpo(1.5 + step, -0.5) - dpo(1.5 - step, -0.5)) / (2 * step)
    assert -slope / 0.1 == pytest.approx(0.4502, abs=1e-4)


def test_the_margin_can_grow_while_the_better_answer_loses() -> None:
    # one token, three words: the hidden state moves along the gradient of log p+ - log p-, which is W+ - W-
    words = torch.tensor([[1.0, 0.0], [2.0, -1.0], [-1.0, 1.0]], dtype=F64)
    state = torch.tensor([0.5, 0.5], dtype=F64)
    chances = [(words @ each).softmax(dim=0).tolist() for each in (state, state + 0.1 * (words[0] - words[1]))]
    assert chances[0] == pytest.approx([0.384, 0.384, 0.233], abs=1e-3)
    assert chances[1][0] < chances[0][0] and chances[1][0] > chances[1][1]


def test_a_negative_that_the_guide_finds_nearer_than_the_positive_is_left_out() -> None:
    made = Guided(temperature=0.05)
    cosines = torch.tensor([[0.7, 0.6, 0.2]] * 3, dtype=F64)
    guide = torch.tensor([[0.8, 0.85, 0.3]] * 3, dtype=F64)
    top, level = torch.full((3,), 0.7, dtype=F64), torch.full((3,), 0.8, dtype=F64)
    found = made.of(top, cosines, guide, level, numbers_of(made))
    # of the first row only the third candidate stays: log(1 + e^((0.2 - 0.7) / 0.05))
    assert found[0].item() == pytest.approx(math.log1p(math.exp(-10)), abs=1e-9)
    every = made.of(top, cosines, guide, level, {"temperature": 0.05, "margin": -3.0})
    assert every[0].item() == pytest.approx(0.1270, abs=1e-4)


def test_a_row_is_no_negative_of_itself_though_the_guide_finds_it_no_nearer() -> None:
    one = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=F64)
    made = Guided(temperature=1.0)
    batch = {"guide_query": one, "guide_positive": one}
    found, _ = made.loss({"embedding": one, "view": one}, batch, numbers_of(made), {})
    # the other positive, the other query and, for the positive, the other positive: three cosines of 0
    assert found.tolist() == pytest.approx([math.log(1 + 3 * math.exp(-1))] * 2)


def test_pairs_of_star_by_hand() -> None:
    one = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=F64)
    made = Star(scale=2.0)
    found, _ = made.loss({"embedding": one, "view": one}, {}, numbers_of(made), {})
    # negatives of the first: one at 0 and its own double at 1
    assert found[0].item() == pytest.approx((math.log1p(math.exp(-2)) + math.log(2)) / 2)
    same = one @ one.T > 0.5
    told, _ = made.loss({"embedding": one, "view": one}, {"same": same}, numbers_of(made), {})
    assert told[0].item() == pytest.approx(math.log1p(math.exp(-2)))
