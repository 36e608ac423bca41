"""Labels of bags: by hand, against all labellings, and where the chances must sum to the counts."""

import itertools
import math

import numpy as np
import pytest

from shoal.policies.bag_counts import count_messages, padded_bags
from shoal.policies.bag_labels import BagLabels, Edges, nearest_pairs

NONE = Edges(np.zeros((0, 2), np.int64), np.zeros(0))
TIGHT = {"tolerance": 1e-12, "passes": 500}


def by_all_labellings(bag, counts, edges: Edges, bag_weight: float, edge_weight: float) -> np.ndarray:
    """Return each row's chance by the definition: a sum over all labels of all rows."""
    total, ones = 0.0, np.zeros(len(bag))
    for labels in itertools.product((0, 1), repeat=len(bag)):
        y = np.array(labels)
        off = np.bincount(bag[bag >= 0], y[bag >= 0], minlength=len(counts)) - counts
        cut = (y[edges.pairs[:, 0]] - y[edges.pairs[:, 1]]) ** 2
        chance = math.exp(-bag_weight * (off**2).sum() - edge_weight * (edges.likeness * cut).sum())
        total, ones = total + chance, ones + chance * y
    return ones / total


def test_three_rows_and_one_edge_by_hand() -> None:
    # a and b share a bag of count 1, c is alone in one; c has label 1, and an edge of 1 nat to a.
    # Either a is 1 (agrees with c) or b is (a does not, e^-1): P(a) = 1 / (1 + e^-1)
    edges = Edges(np.array([[0, 2]]), np.array([1.0]))
    found = BagLabels(bag_weight=10.0, edge_weight=1.0, **TIGHT).beliefs(
        np.array([0, 0, 1]), np.array([1.0, 1.0]), edges
    )
    assert found.chance == pytest.approx([0.731, 0.269, 1.0], abs=1e-3)
    assert found.chance[0] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-4)


def test_a_bag_of_two_rows_by_hand() -> None:
    # sums 0, 1 and 2 of count 1 weigh e^-2, 1 and e^-2; the other row's odds are 3 to 1.
    # label 1: 1/4 * 1 + 3/4 * e^-2; label 0: 1/4 * e^-2 + 3/4 * 1
    found = count_messages(np.array([0.0, math.log(3)]), np.array([0, 0]), np.array([1.0]), 2.0)
    low = math.exp(-2)
    assert found[0] == pytest.approx(math.log((1 + 3 * low) / (low + 3)))
    assert found[1] == pytest.approx(0.0)


@pytest.mark.parametrize("seed", range(6))
def test_on_a_tree_the_chances_are_those_of_all_labellings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bag, counts = np.array([0, 0, 0, 1, 1, 2, -1, 3, 3, 3, 3]), np.array([1.0, 1.5, 1.0, 3.0])
    # each edge joins two bags that nothing else joins
    edges = Edges(np.array([[0, 3], [4, 5], [1, 6], [6, 7]]), rng.random(4))
    weight, cost = rng.uniform(0.2, 3, 2)
    found = BagLabels(bag_weight=weight, edge_weight=cost, **TIGHT).beliefs(bag, counts, edges)
    assert found.chance == pytest.approx(by_all_labellings(bag, counts, edges, weight, cost), abs=1e-9)
    assert found.change <= 1e-12 and found.passes < 500


@pytest.mark.parametrize("seed", range(4))
def test_with_loops_of_weak_edges_the_chances_are_near_those_of_all_labellings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bag, counts = np.repeat([0, 1, 2], 4), np.array([1.0, 2.0, 3.0])
    made = BagLabels(bag_weight=5.0, edge_weight=0.5, neighbours=2, **TIGHT)
    edges = made.edges(rng.normal(size=(12, 3)))
    found = made.beliefs(bag, counts, edges)
    assert found.chance == pytest.approx(by_all_labellings(bag, counts, edges, 5.0, 0.5), abs=0.05)


def test_without_edges_each_row_has_its_bags_share() -> None:
    bag, counts = np.repeat([0, 1, 2], [5, 40, 3]), np.array([2.0, 9.0, 0.0])
    found = BagLabels(edge_weight=0.0, bag_weight=50.0).beliefs(bag, counts, NONE)
    assert found.chance == pytest.approx(np.repeat([0.4, 0.225, 0.0], [5, 40, 3]), abs=1e-9)


def clouds(seed: int = 0, size: int = 32, bags: int = 24) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    label = (rng.random((bags, size)) < rng.random((bags, 1))).astype(int).ravel()
    x = rng.normal(size=(bags * size, 6)) + 2.0 * label[:, None] * (np.arange(6) < 4)
    bag = np.repeat(np.arange(bags), size)
    return x, bag, np.bincount(bag, label).astype(float), label


def test_neighbours_find_labels_that_the_shares_alone_do_not() -> None:
    x, bag, counts, label = clouds()
    made = BagLabels()
    found = made.beliefs(bag, counts, made.edges(x))
    alone = (counts / 32)[bag] > 0.5
    assert ((found.chance > 0.5) == label).mean() > 0.93 > 0.85 > (alone == label).mean()
    assert np.abs(found.gaps).max() < 0.1
    sums = np.bincount(bag, found.chance) - counts
    assert found.gaps == pytest.approx(sums)


def test_the_order_of_rows_and_the_names_of_labels_do_not_matter() -> None:
    x, bag, counts, _ = clouds(1, 8, 6)
    made = BagLabels(**TIGHT)
    chance = made.beliefs(bag, counts, made.edges(x)).chance
    order = np.random.default_rng(2).permutation(len(bag))
    moved = made.beliefs(bag[order], counts, made.edges(x[order])).chance
    assert moved == pytest.approx(chance[order], abs=1e-6)
    swapped = made.beliefs(bag, 8 - counts, made.edges(x)).chance
    assert swapped == pytest.approx(1 - chance, abs=1e-6)


def test_bags_of_all_sizes_are_counted_as_each_alone() -> None:
    rng = np.random.default_rng(3)
    bag = rng.permutation(np.repeat(np.arange(7), [1, 2, 3, 9, 10, 40, 0]))
    bag = np.concatenate([bag, [-1, -1]])
    odds, counts = 3 * rng.normal(size=len(bag)), np.array([1, 0, 2, 4.5, 10, 7, 0])
    together = count_messages(odds, bag, counts, 4.0)
    for number in range(6):
        own = bag == number
        alone = count_messages(odds[own], np.zeros(own.sum(), int), counts[number : number + 1], 4.0)
        assert together[own] == pytest.approx(alone, rel=1e-9, abs=1e-9)
    assert together[-2:].tolist() == [0.0, 0.0]
    assert sorted(np.concatenate([block for _, _, block in padded_bags(bag, 7)])) == [0, 1, 2, 3, 4, 5]


def test_rows_that_are_sure_of_what_the_count_denies_give_finite_chances() -> None:
    odds = np.full(300, -800.0)
    found = count_messages(odds, np.zeros(300, int), np.array([150.0]), 10.0)
    assert np.isfinite(found).all() and (found > 0).all()


def test_pairs_of_neighbours_stand_there_once() -> None:
    rows = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert nearest_pairs(rows, 1).tolist() == [[0, 1], [2, 3]]
    assert nearest_pairs(rows, 9).shape == (6, 2) and nearest_pairs(rows[:1], 5).shape == (0, 2)


def test_likeness_falls_with_the_distance() -> None:
    # two features of mean 0 and deviation 1 once they are scaled
    edges = BagLabels(neighbours=1, reach=2.0).edges(np.array([[10.0, 0], [10.0, 0], [-10, 3], [-10, 3]]))
    assert edges.pairs.tolist() == [[0, 1], [2, 3]] and edges.likeness.tolist() == [1.0, 1.0]
    edges = BagLabels(reach=2.0).edges(np.array([[1.0], [3.0]]))
    assert edges.likeness == pytest.approx([math.exp(-1)])  # scaled to -1 and 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bag_weight": -1.0}, "bag_weight must be at least 0"),
        ({"edge_weight": math.nan}, "edge_weight must be at least 0 and finite"),
        ({"reach": 0.0}, "reach must be above 0"),
        ({"passes": 0}, "passes must be at least 1"),
        ({"damping": 1.0}, "damping must be at least 0 and below 1"),
    ],
)
def test_settings_of_bags_that_cannot_be_are_refused(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BagLabels(**given)


def test_counts_that_no_bag_has_are_refused() -> None:
    made = BagLabels()
    for count in (3.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="from 0 to the rows of its bag, but bag 0 has 2 rows"):
            made.beliefs(np.array([0, 0]), np.array([count]), NONE)
    with pytest.raises(ValueError, match="each bag must have a count, but there are 1 for bag 4"):
        made.beliefs(np.array([0, 4]), np.array([1.0]), NONE)
