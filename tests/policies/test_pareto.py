"""Which points stand on a front, by hand and against the definition."""

import numpy as np
import pytest

from shoal.policies.pareto import choose, front, hypervolume


def test_the_front_by_hand() -> None:
    # the third is as good as the first but dearer; the fourth is cheaper and worse; the last has failed
    scores, costs = [0.9, 0.8, 0.9, 0.5, np.nan], [2.0, 2.0, 3.0, 1.0, 0.5]
    assert front(scores, costs).tolist() == [True, False, False, True, False]


def test_equal_points_all_stay() -> None:
    assert front([-1, -1, -2], [2, 2, 1]).tolist() == [True, True, True]


def test_the_front_is_what_nobody_beats_in_any_number_of_costs() -> None:
    rng = np.random.default_rng(0)
    scores, costs = rng.integers(6, size=40), rng.integers(6, size=(40, 2))
    for place, kept in enumerate(front(scores, costs)):
        beaten = any(
            scores[other] >= scores[place]
            and (costs[other] <= costs[place]).all()
            and (scores[other] > scores[place] or (costs[other] < costs[place]).any())
            for other in range(40)
        )
        assert kept != beaten


def test_the_best_within_a_budget_and_the_cheaper_of_equals() -> None:
    scores, costs = [0.7, 0.9, 0.9, 0.95], [1.0, 3.0, 2.0, 9.0]
    assert [choose(scores, costs, budget) for budget in (1.5, 3.0, 10.0)] == [0, 2, 3]
    with pytest.raises(ValueError, match=r"budget 0\.5 is below every cost; the nearest is 1\."):
        choose(scores, costs, 0.5)


def test_the_hypervolume_by_hand() -> None:
    # worst corner: score 0, cost 4. Points (cost 1, score 1), (cost 2, score 3): 1 * 3 + 2 * 2 = 7; a beaten
    # point and one beyond the corner add nothing
    assert hypervolume([1, 3, 2, 9], [1, 2, 3, 5], 0, 4) == 7.0
