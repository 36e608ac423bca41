"""A grid's points, worked by hand."""

import pytest

from shoal.policies.grid import grid_points
from shoal.policies.space import Bool, Categorical, Constant, Float, Int, Ordered


def test_six_values_are_tried_once_each() -> None:
    space = {"rate": Ordered((1, 2, 3, 4, 5, 6))}
    assert grid_points(space, 6) == [{"rate": value} for value in (1, 2, 3, 4, 5, 6)]


def test_numbers_are_spaced_evenly_or_in_the_logarithm() -> None:
    points = grid_points({"a": Float(0.0, 1.0), "b": Float(0.01, 1.0, log=True)}, 9)
    assert [point["a"] for point in points[::3]] == [0.0, 0.5, 1.0]
    assert [point["b"] for point in points[:3]] == pytest.approx([0.01, 0.1, 1.0])
    assert grid_points({"a": Int(1, 9)}, 3) == [{"a": 1}, {"a": 5}, {"a": 9}]


def test_values_and_numbers_are_combined_with_the_last_next_to_one_another() -> None:
    space = {
        "kind": Categorical(("x", "y")),
        "inner": {"on": Bool(), "rate": Float(0.0, 2.0)},
        "c": Constant(7),
    }
    points = grid_points(space, 8)
    assert points[:3] == [
        {"kind": "x", "inner": {"on": False, "rate": 0.0}, "c": 7},
        {"kind": "x", "inner": {"on": False, "rate": 2.0}, "c": 7},
        {"kind": "x", "inner": {"on": True, "rate": 0.0}, "c": 7},
    ]
    assert len({str(point) for point in points}) == 8


def test_one_level_is_the_middle() -> None:
    assert grid_points({"kind": Bool(), "rate": Float(1.0, 3.0)}, 2) == [
        {"kind": False, "rate": 2.0},
        {"kind": True, "rate": 2.0},
    ]


@pytest.mark.parametrize(
    ("space", "members", "said"),
    [
        ({"a": Ordered((1, 2, 3)), "b": Bool()}, 8, "no grid over these domains has 8 points; use 6"),
        ({"a": Float(0.0, 1.0), "b": Float(0.0, 1.0)}, 8, "has 8 points; use 4 or 9"),
        ({"a": Int(1, 2)}, 5, "a has no 5 different values"),
    ],
)
def test_other_numbers_of_members_are_refused(space, members: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        grid_points(space, members)
