"""Likeness to a target: by hand, and what neither blocks nor the order of rows may change."""

import numpy as np
import pytest

from shoal.policies.selection import likeness as module
from shoal.policies.selection.likeness import directions, likeness, mean_direction

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(50, 6))
TARGETS = [directions(RNG.normal(size=(count, 6)))[0] for count in (9, 4)]


def test_cosines_by_hand() -> None:
    target, known = directions(np.array([[3.0, 0.0], [0.0, 0.5], [0.0, 0.0], [np.nan, 1.0]]))
    assert known.tolist() == [True, True, False, False]
    target = target[known]  # the two axes
    rows = np.array([[4.0, 3.0], [0.0, 2.0], [-1.0, 0.0], [0.0, 0.0], [np.inf, 1.0]])
    nan = np.nan
    assert likeness(rows, [target], 1) == pytest.approx([0.8, 1.0, 0.0, nan, nan], nan_ok=True)
    # the mean of both cosines, also where more are asked for than there are
    for nearest in (2, 7):
        found = likeness(rows, [target], nearest)
        assert found == pytest.approx([0.7, 0.5, -0.5, nan, nan], nan_ok=True)
    mean = mean_direction(target)
    assert mean == pytest.approx(np.full((1, 2), np.sqrt(0.5)))
    assert likeness(rows[:3], [mean], 1) == pytest.approx([1.4 * 0.5**0.5, 0.5**0.5, -(0.5**0.5)])
    # of two targets the one that a row is more like counts
    assert likeness(rows[:3], [target[:1], -target[:1]], 1) == pytest.approx([0.8, 0.0, 1.0])


def test_directions_that_cancel_have_no_mean() -> None:
    assert not mean_direction(np.array([[1.0, 0.0], [-1.0, 0.0]])).any()


@pytest.mark.parametrize("nearest", [1, 3, 9])
class TestContract:
    def test_blocks_decide_nothing(self, monkeypatch, nearest) -> None:
        whole = likeness(ROWS, TARGETS, nearest)
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
        monkeypatch.setattr(module, "TARGETS_AT_ONCE", 2)
        assert likeness(ROWS, TARGETS, nearest) == pytest.approx(whole, abs=1e-6)

    def test_neither_order_nor_length_of_vectors_matters(self, nearest) -> None:
        whole, order = likeness(ROWS, TARGETS, nearest), RNG.permutation(50)
        scaled = ROWS[order] * RNG.uniform(0.1, 10, (50, 1))
        turned = [target[::-1] for target in reversed(TARGETS)]
        assert likeness(scaled, turned, nearest) == pytest.approx(whole[order], abs=1e-6)

    def test_it_equals_all_cosines_sorted(self, nearest) -> None:
        unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
        each = [np.sort(unit @ target.T, axis=1)[:, -nearest:].mean(axis=1) for target in TARGETS]
        found = likeness(ROWS.astype(np.float32), TARGETS, nearest)
        assert found == pytest.approx(np.max(each, axis=0), abs=1e-6) and found.dtype == np.float32


def test_a_row_of_the_target_is_as_like_as_can_be() -> None:
    assert likeness(TARGETS[0] * 3, TARGETS, 1).tolist() == [1.0] * 9
