"""The arithmetic of the benchmark of sampling policies."""

import math

from benchmarks.time_to_accuracy import compare, pieces, reached


def run(rows: int, path: list[tuple[int, float, float]]) -> dict:
    return {"rows": rows, "seconds": rows / 10, "score": path[-1][2], "path": path}


def test_steps_are_cut_where_a_look_is_due() -> None:
    assert pieces(10, 4, 0) == [4, 4, 2] and pieces(10, 4, 3) == [1, 4, 4, 1] and pieces(4, 4, 4) == [4]


def test_a_target_is_reached_at_the_first_look_that_has_it_or_never() -> None:
    once = run(30, [(10, 1.0, 0.5), (20, 2.0, 0.9), (30, 3.0, 0.8)])
    assert reached(once, 0.85) == (20, 2.0) and reached(once, 0.95) == (math.inf, math.inf)


def test_a_method_is_compared_by_medians_and_never_is_said() -> None:
    full = [run(40, [(20, 2.0, 0.5), (40, 4.0, 0.9)]) for _ in range(3)]
    half = [run(20, [(10, 2.0, 0.5), (20, 3.0, score)]) for score in (0.9, 0.9, 0.1)]
    found = compare(half, full, 0.9)
    # two of three reach it at row 20 of 40 and second 3 of 4
    assert (found["samples_over_full"], found["seconds_over_full"]) == (0.5, 0.75)
    assert (found["used_samples_over_full"], found["seeds_at_target"], found["seeds"]) == (0.5, 2, 3)
    never = compare([run(20, [(20, 3.0, 0.1)])] * 3, full, 0.9)
    assert never["samples_over_full"] is None and never["seconds_over_full"] is None
