"""Losses that pytorch-metric-learning has too: value and gradient are equal."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from shoal.trainables.objectives.contrastive import Contrastive
from shoal.trainables.objectives.hard_negatives import HardNegatives
from shoal.trainables.objectives.star import Star
from tests.helpers.objectives import numbers_of

losses = pytest.importorskip("pytorch_metric_learning.losses")
distances = pytest.importorskip("pytorch_metric_learning.distances")
reducers = pytest.importorskip("pytorch_metric_learning.reducers")

ROWS, WIDTH, HEAT = 7, 5, 0.2
ROW = torch.arange(ROWS)  # the library takes labels that are one object for those of the rows themselves


def views() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    one, other = (torch.randn(ROWS, WIDTH, generator=draws, dtype=torch.float64) for _ in range(2))
    return one.requires_grad_(), other.requires_grad_()


def equal(ours: Callable[[Tensor, Tensor], Tensor], theirs: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Compare mean losses and gradients within 1e-5."""
    found: list[Any] = []
    for function in (ours, theirs):
        one, other = views()
        loss = function(one, other)
        loss.backward()
        found.append((loss.detach(), one.grad, other.grad))
    for mine, wanted in zip(*found, strict=True):
        assert torch.allclose(mine, wanted.to(mine.dtype), atol=1e-5)


def contrastive(**given: Any) -> Callable[[Tensor, Tensor], Tensor]:
    made = Contrastive(temperature=HEAT, **given)
    return lambda one, other: made.loss({"embedding": one, "view": other}, {}, numbers_of(made), {})[0].mean()


@pytest.mark.parametrize("kind", ["NTXentLoss", "SupConLoss"])
def test_two_views_of_rows_among_both_views_of_all_rows(kind: str) -> None:
    """With one positive for each row the two losses are one."""
    theirs = getattr(losses, kind)(temperature=HEAT)
    equal(
        contrastive(blocks="all"),
        lambda one, other: theirs(torch.cat([one, other]), torch.cat([ROW, ROW])),
    )


def test_queries_among_the_positives_of_all_rows_in_both_directions() -> None:
    theirs = losses.NTXentLoss(temperature=HEAT)

    def both(one: Tensor, other: Tensor) -> Tensor:
        return (
            theirs(one, ROW, ref_emb=other, ref_labels=ROW.clone())
            + theirs(other, ROW, ref_emb=one, ref_labels=ROW.clone())
        ) / 2

    equal(contrastive(), both)


def test_hard_negatives_of_all_queries_stand_in_each_softmax() -> None:
    made, theirs = HardNegatives(temperature=HEAT), losses.NTXentLoss(temperature=HEAT)
    hard = torch.randn(ROWS, 2, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def ours(one: Tensor, other: Tensor) -> Tensor:
        out = {"embedding": one, "view": other, "negatives": hard, "draws": hard[..., 0]}
        return made.loss(out, {"there": torch.ones(ROWS, 2)}, numbers_of(made), {})[0].mean()

    def wanted(one: Tensor, other: Tensor) -> Tensor:
        found = torch.cat([other, hard.flatten(0, 1)])
        return theirs(one, ROW, ref_emb=found, ref_labels=torch.cat([ROW, torch.full((2 * ROWS,), -1)]))

    equal(ours, wanted)


def test_each_positive_against_each_negative() -> None:
    made = Star(scale=1.0)
    theirs = losses.TripletMarginLoss(
        margin=0.0, smooth_loss=True, distance=distances.CosineSimilarity(), reducer=reducers.MeanReducer()
    )

    def ours(one: Tensor, other: Tensor) -> Tensor:
        found, _ = made.loss({"embedding": one, "view": other}, {}, numbers_of(made), {})
        return found.mean()

    equal(ours, lambda one, other: theirs(one, ROW, ref_emb=other, ref_labels=ROW.clone()))
