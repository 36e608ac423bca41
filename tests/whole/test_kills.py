"""Random kills of drivers and workers cost nothing; `python -m tests.helpers.kills` kills more of them."""

import pytest

from tests.helpers import kills


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_runs_whose_driver_is_killed_at_random_moments_end_as_a_plain_loop(tmp_path) -> None:
    assert kills.drivers(tmp_path, 100, seed=1) == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_whose_workers_are_killed_at_random_moments_end_as_a_plain_loop(tmp_path) -> None:
    assert kills.workers(tmp_path, 20, seed=1) == []
