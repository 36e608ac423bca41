"""Classes told apart by a few rows: the clustering by hand, its energy, and the score of a classifier."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from shoal.trainables.few_shot import (
    clustered,
    energy,
    episodes,
    few_shot,
    moved_shares,
    neighbours,
    squares_apart,
)
from tests.helpers.classifiers import classifier

F64 = torch.float64


def test_without_neighbours_it_is_soft_k_means_from_the_support() -> None:
    support, known = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=F64), torch.eye(2)
    query = torch.tensor([[0.5, 0.0]], dtype=F64)
    # one step: squared distances .25 and 2.25, so the shares are those of softmax(-.25, -2.25)
    shares = (-squares_apart(query, support)).softmax(dim=-1)
    assert shares[0, 0].item() == pytest.approx(1 / (1 + np.exp(-2)))
    moved, means = moved_shares(
        torch.cat([support, query]), known.to(F64), shares, torch.zeros(3, 3, dtype=F64), 0.0
    )
    share = shares[0, 0].item()
    assert means[0, 0].item() == pytest.approx(0.5 * share / (1 + share))
    other = (2 + 0.5 * (1 - share)) / (2 - share)
    apart = (0.5 - other) ** 2 - (0.5 - means[0, 0].item()) ** 2
    assert moved[0, 0].item() == pytest.approx(1 / (1 + np.exp(-apart)))


def test_the_energy_never_rises_where_likeness_is_positive_semi_definite() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(14, 3, generator=draws, dtype=F64)
    fixed = one_hot(torch.tensor([0, 1, 2]), 3).to(F64)
    half = torch.rand(14, 5, generator=draws, dtype=F64)
    near = half @ half.T / 5
    shares, found = torch.full((11, 3), 1 / 3, dtype=F64), []
    for _ in range(10):
        shares, means = moved_shares(x, fixed, shares, near, 0.7)
        found.append(energy(x, torch.cat([fixed, shares]), means, near, 0.7).item())
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(found))


def test_neighbours_are_mutual_and_rows_may_come_in_any_order() -> None:
    draws = torch.Generator().manual_seed(0)
    support, query = (torch.randn(rows, 4, generator=draws, dtype=F64) for rows in (3, 8))
    near = neighbours(torch.cat([support, query]))
    assert torch.equal(near, near.T) and (near.diagonal() == 0).all()
    order = torch.randperm(8, generator=draws)
    one, other = (clustered(support, torch.eye(3), rows) for rows in (query, query[order]))
    assert torch.allclose(other, one[order])


def test_a_neighbour_pulls_a_row_over() -> None:
    support = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=F64)
    query = torch.tensor([[0.75, 0.66], [0.2, 0.98], [0.3, 0.95], [0.25, 0.97]], dtype=F64)
    alone, pulled = (clustered(support, torch.eye(2), query, pull) for pull in (0.0, 1.0))
    # the first row lies a little nearer the first class, and all its neighbours are of the second
    assert pulled[0, 1] > alone[0, 1]


def test_episodes_depend_on_labels_alone_and_leave_out_rare_classes() -> None:
    labels = np.array([0] * 8 + [1] * 8 + [2])
    drawn = episodes(labels, np.ones(17, bool), ways=5, shots=2)
    again = episodes(labels, np.ones(17, bool), ways=5, shots=2)
    assert len(drawn) == 30 and all(
        np.array_equal(one[0], other[0]) for one, other in zip(drawn, again, strict=True)
    )
    support, query = drawn[0]
    assert support.shape == (2, 2) and query.shape == (2, 6) and not set(support.ravel()) & set(query.ravel())
    assert 16 not in {*support.ravel(), *query.ravel()}
    nothing = few_shot(torch.randn(3, 2), torch.tensor([0, 1, 2]), torch.ones(3), 5, 1)
    assert nothing.item() == 0.0


def test_a_classifier_is_ranked_by_classes_told_apart_from_one_row_each() -> None:
    member = classifier(score="few_shot", ways=3, shots=1)
    member.train(40)
    assert member.evaluate()[0] > 0.7 and member.measure()["few_shot"] == member.evaluate()[0]
