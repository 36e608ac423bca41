"""A share of the rows by their scores, searched as a number of each member."""

import numpy as np
import pytest

from shoal.policies.mixing import normalise
from shoal.policies.sampling.interface import Context
from shoal.policies.sampling.kept_share import KeptShare, ScoreCut
from shoal.search.corpus.batches import MixedBatches
from shoal.search.corpus.scores import in_ranks
from shoal.search.members.kept import KeptRows
from shoal.search.members.sampled import SampledBatches
from shoal.search.members.views import Pace
from shoal.trainables.language import LanguageModel
from shoal.trainables.settings import Recipe
from tests.helpers.members import HELD_OUT, SHAPE, equal
from tests.search.members.test_sampled import STREAMS

SCORES = {name: np.random.default_rng(1).normal(size=stream.order.rows) for name, stream in STREAMS.items()}


def kept(rule: KeptShare, scores, ids=None) -> np.ndarray:
    ids = np.arange(len(scores)) if ids is None else ids
    columns = {"score": np.asarray(scores, float)}
    plan = rule.plan(ids, columns, Context(0, 1, 5, len(ids)))
    return ids[plan.decide(ids, columns).copies > 0]


def test_by_hand() -> None:
    # half of five rows are two, by rounding to the even number; the row without a score is never kept
    scores = [1.0, 3.0, np.nan, 2.0, 3.0]
    assert kept(KeptShare(0.5), scores).tolist() == [1, 4]
    assert kept(KeptShare(0.5, least=True), scores).tolist() == [0, 3]
    # of equal scores the least id, so that the number is exact
    assert kept(KeptShare(0.2), scores).tolist() == [1]
    assert kept(KeptShare(1.0), scores).tolist() == [0, 1, 3, 4]


def test_a_larger_share_holds_the_rows_of_a_smaller_one() -> None:
    scores = np.random.default_rng(0).normal(size=500)
    for temperature in (0.0, 1.0, 50.0):
        sets = [set(kept(KeptShare(share, temperature), scores).tolist()) for share in (0.1, 0.4, 0.7)]
        assert [len(each) for each in sets] == [50, 200, 350] and sets[0] < sets[1] < sets[2]
    # much noise keeps rows of any score
    assert scores[list(sets[0])].mean() < 1.0 < scores[kept(KeptShare(0.1), scores)].mean()


def test_a_cut_by_hand() -> None:
    scores = [1.0, 3.0, np.nan, 2.0, 3.0]
    assert kept(ScoreCut(2.0), scores).tolist() == [1, 3, 4]
    assert kept(ScoreCut(2.0, least=True), scores).tolist() == [0, 3]
    with pytest.raises(ValueError, match="cut must be a finite number"):
        ScoreCut(np.inf)


def test_two_scores_are_blended_by_hand() -> None:
    scores = np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.6], [np.nan, 1.0]])
    # of the first score alone, of the second alone, and of 0.5 0.5 0.6
    assert kept(KeptShare(0.25), scores).tolist() == [1]
    assert kept(KeptShare(0.25, blend=1.0), scores).tolist() == [0]
    assert kept(KeptShare(0.25, blend=0.5), scores).tolist() == [2]
    assert kept(ScoreCut(0.55, blend=0.5), scores).tolist() == [2]


def test_scores_of_other_units_are_put_into_ranks_over_all_groups() -> None:
    found = in_ranks({"a": np.array([5.0, np.nan], np.float32), "b": np.array([-100.0, 9.0], np.float32)})
    assert found["a"].tolist()[0] == 0.5 and np.isnan(found["a"][1]) and found["b"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("given", [{"share": 0}, {"share": 1.1}, {"temperature": -1}, {"blend": 2}])
def test_what_must_hold(given) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        KeptShare(**given)


def member(seed: int = 0, **hyperparameters) -> LanguageModel:
    pace = Pace(40)
    pools = {
        name: KeptRows(stream, KeptShare(0.5), 0, pace, score=SCORES[name]) for name, stream in STREAMS.items()
    }
    mixed = MixedBatches(pools, normalise([1, 1]), 8)
    batches = SampledBatches(mixed, list(pools.values()), KeptShare(0.5), pace)
    recipe = Recipe(steps=40, warmup=4)
    found = LanguageModel(recipe, hyperparameters, batches, HELD_OUT, seed, shape=SHAPE)
    batches.wanted = lambda: found.hyperparameters.get("sampling", {})
    return found


def shares(found: LanguageModel) -> list[float]:
    return [pool.keep.mean() for pool in found.batches.pools]


def test_each_member_reads_its_own_share_and_a_clone_goes_on_with_its_own() -> None:
    small, large = member(sampling={"share": 0.25}), member(sampling={"share": 0.75})
    for each in (small, large):
        each.train(3)
    assert shares(small) == [0.25, 0.25] and shares(large) == [0.75, 0.75]
    position = large.batches.pools[0].position
    small.load(large.state(), {"sampling": {"share": 0.5}})
    assert small.batches.pools[0].position == position
    small.train(1)
    assert shares(small) == [0.5, 0.5]
    # the plain rule holds where nothing is searched
    plain = member()
    plain.train(1)
    assert shares(plain) == [0.5, 0.5]


def test_a_member_that_is_loaded_goes_on_exactly() -> None:
    first, second = member(sampling={"share": 0.3}), member(1, sampling={"share": 0.9})
    first.train(7)
    second.train(2)
    second.load(first.state(), {"sampling": {"share": 0.3}})
    assert first.train(9) == second.train(9)
    assert equal(first.state(), second.state())


def test_a_clone_that_gets_back_the_share_it_had_before_is_planned_by_it() -> None:
    small, large = member(sampling={"share": 0.25}), member(sampling={"share": 0.75})
    for each in (small, large):
        each.train(3)
    small.load(large.state(), {"sampling": {"share": 0.25}})
    small.train(1)
    assert shares(small) == [0.25, 0.25]
