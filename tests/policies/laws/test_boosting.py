import numpy as np
import pytest

from shoal.policies.laws.loglinear import Law
from shoal.policies.ranks import spearman
from shoal.search.runs.boosting import boosted


def test_trees_rank_mixtures_that_they_have_not_seen() -> None:
    pytest.importorskip("lightgbm")
    law, rng = Law(np.zeros(2), np.array([[-2.0, 0.5, 0.0], [0.0, -1.0, 1.0]])), np.random.default_rng(0)
    mixtures, others = rng.dirichlet(np.ones(3), 300), rng.dirichlet(np.ones(3), 200)
    predict = boosted(mixtures, law.losses(mixtures))
    assert predict(others).shape == (200, 2)
    assert all(spearman(*pair) > 0.95 for pair in zip(predict(others).T, law.losses(others).T, strict=True))
    again = boosted(mixtures, law.losses(mixtures))
    assert (again(others) == predict(others)).all()
