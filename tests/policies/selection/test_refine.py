"""The rounds of selecting, refining and seeding: who is flagged, whose child is whose, and when it ends."""

import numpy as np
import pytest

from shoal.policies.selection.refine import (
    KEEP,
    REWRITE,
    SEED,
    SIMPLIFY,
    Flagged,
    Refine,
    deviations,
    next_generation,
    similarity_to_nearest,
)


def signals(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=rows) for name in sorted(Refine.needs)}


def test_by_hand() -> None:
    # mean 1, deviation sqrt(3): row 3 lies sqrt(3) above; of the others -0.58
    high = np.array([0.0, 0.0, 0.0, 4.0])
    assert deviations(high) == pytest.approx([-0.577, -0.577, -0.577, 1.732], abs=1e-3)
    columns = {"loss_before": high, "loss_after": high, "similarity": -high[::-1], "rating": high * 0}
    found = Refine().flag(columns)
    assert found.action.tolist() == [KEEP, KEEP, KEEP, SIMPLIFY] and found.seeds.tolist() == [
        True,
        False,
        False,
        False,
    ]
    assert found.share == 0.5
    # rated low goes before hard
    found = Refine().flag(columns | {"rating": -high})
    assert found.action.tolist() == [KEEP, KEEP, KEEP, REWRITE]
    # both losses must be high
    assert (Refine().flag(columns | {"loss_after": high[::-1]}).action == KEEP).all()


def test_the_flagged_shares_are_those_of_the_normal_distribution() -> None:
    columns = signals(100_000)
    found = Refine(hard=1.0, alone=1.0, low=1.5).flag(columns)
    # one-sided: 15.9 % beyond 1, 6.7 % beyond 1.5, and 2.5 % where two independent signals are
    assert found.seeds.mean() == pytest.approx(0.159, abs=0.005)
    assert (found.action == REWRITE).mean() == pytest.approx(0.067, abs=0.004)
    only_hard = Refine(low=9.0).flag(columns)
    assert (only_hard.action == SIMPLIFY).mean() == pytest.approx(0.025, abs=0.002)


def test_the_multiplier_counts() -> None:
    columns = signals(10_000)
    flagged = [
        int((Refine(hard=hard, low=9).flag(columns).action == SIMPLIFY).sum()) for hard in (0.5, 1.0, 2.0)
    ]
    assert flagged[0] > flagged[1] > flagged[2]


def test_values_that_are_not_finite_flag_nothing() -> None:
    columns = {name: np.full(5, np.nan) for name in Refine.needs}
    assert Refine().flag(columns).share == 0.0


def test_rows_are_kept_replaced_or_added_and_none_is_lost() -> None:
    ids = np.arange(100, 106)
    flagged = Flagged(
        np.array([KEEP, SIMPLIFY, REWRITE, KEEP, KEEP, SIMPLIFY], np.int8),
        np.array([False, False, True, True, False, False]),
    )
    found = next_generation(ids, flagged, 1)
    kept = found.ids[found.action == KEEP]
    assert kept.tolist() == [100, 103, 104]
    parents = {action: found.parent[found.action == action].tolist() for action in (SIMPLIFY, REWRITE, SEED)}
    assert parents == {SIMPLIFY: [101, 105], REWRITE: [102], SEED: [102, 103]}
    # kept and replaced parents are all the rows
    assert sorted([*kept.tolist(), *parents[SIMPLIFY], *parents[REWRITE]]) == ids.tolist()
    assert len(set(found.ids.tolist())) == len(found.ids) == 8
    again = next_generation(ids, flagged, 1)
    assert all(np.array_equal(one, two) for one, two in zip(found, again, strict=True))
    assert not np.intersect1d(next_generation(ids, flagged, 2).ids, found.ids[3:]).size


def test_a_row_whose_child_could_not_be_made_stays() -> None:
    ids, flagged = np.arange(3), Flagged(np.array([KEEP, SIMPLIFY, REWRITE], np.int8), np.zeros(3, bool))
    child = int(next_generation(ids, flagged, 0).ids[1])
    found = next_generation(ids, flagged, 0, lost=frozenset({child}))
    assert found.ids[found.action == KEEP].tolist() == [0, 1] and len(found.ids) == 3


@pytest.mark.parametrize(
    "shares, scores, said",
    [
        ([], [], ""),
        ([0.3], [1.0], ""),
        ([0.005], [1.0], "less than least_share"),
        ([0.3, 0.3], [1.0, 0.9], "not risen since round 0"),
        ([0.3, 0.3], [1.0, 1.1], ""),
        ([0.3, 0.3, 0.3], [1.0, 1.1, 1.2], "all 3 rounds"),
    ],
)
def test_when_the_rounds_end(shares, scores, said) -> None:
    found = Refine().ended(shares, scores)
    assert said in found and bool(said) == bool(found)


def test_the_nearest_rows_are_those_of_the_whole_matrix_and_a_row_alone_is_seen() -> None:
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(1500, 4)) + 50  # all point one way
    centred = embedding - embedding.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    expected = np.sort(cosines, axis=1)[:, -2:].mean(axis=1)
    assert similarity_to_nearest(embedding) == pytest.approx(expected)
    clustered = np.concatenate([rng.normal((5, 5, 0), 0.1, (30, 3)), [[-150.0, 0.0, 9.0]]])
    assert similarity_to_nearest(clustered).argmin() == 30
    assert similarity_to_nearest(np.ones((1, 3))).tolist() == [0.0]
