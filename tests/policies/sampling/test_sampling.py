"""Sampling policies: a contract for all of them, each one by hand, and the gates of the fact sheet."""

import math
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.policies.sampling.chance import keys, uniform
from shoal.policies.sampling.clusters import cut_points
from shoal.policies.sampling.dynamic import Dynamic, Extremes, LinUpper, Quadratic
from shoal.policies.sampling.hardness import EasyToHard, hardness, levels, recovered_gap
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.policies.sampling.interface import Context
from shoal.policies.sampling.kept_share import ScoreCut
from shoal.policies.sampling.losses import BYTES_A_ROW, LastLosses
from shoal.policies.sampling.random_subset import RandomSubset
from shoal.policies.sampling.rules import SAMPLERS
from shoal.policies.sampling.seta import SeTa
from shoal.policies.sampling.small_loss import SmallLossRows

ROWS = 2000
IDS = np.arange(ROWS)
LOSSES = np.random.default_rng(0).exponential(2.0, ROWS).astype(np.float32)
RULES = [make() for make in SAMPLERS.values()] + [
    ScoreCut(1.0),
    RandomSubset(0.3, replacement=True),
    SeTa(0.1, 5, 3, age=2),
    LinUpper(0.4, burn_in=7),
    EasyToHard("loss"),
    SmallLossRows(alternate="high"),
]
names = pytest.mark.parametrize("rule", RULES, ids=repr)
WEIGHING = [LinUpper, Quadratic, Extremes]


def context(epoch: int = 3, epochs: float = 20, seed: int = 5, rows: int = ROWS) -> Context:
    return Context(epoch, epochs, seed, rows)


def known(losses, ids=None) -> dict:
    """Columns in which the score is the loss, and rows were dropped in none to two epochs before."""
    ids = np.arange(len(losses)) if ids is None else ids
    return {"loss": losses, "score": losses, "age": (ids % 3).astype(np.int16)}


def decided(plan, ids=IDS, losses=LOSSES):
    found = plan.decide(ids, known(losses, ids))
    return [found.copies, found.weight] + ([] if found.rank is None else [found.rank])


def kept(plan, ids=IDS, losses=LOSSES) -> np.ndarray:
    return ids[plan.decide(ids, known(losses, ids)).copies > 0]


@names
class TestContract:
    def test_a_decision_does_not_depend_on_blocks_or_order(self, rule) -> None:
        plan = rule.plan(IDS, known(LOSSES), context())
        whole = decided(plan)
        order = np.random.default_rng(1).permutation(ROWS)
        for parts in (np.array_split(IDS, 1), np.array_split(IDS, 7), np.array_split(order, 37)):
            found = [decided(plan, part, LOSSES[part]) for part in parts]
            for place, expected in enumerate(whole):
                joined = np.concatenate([each[place] for each in found])
                assert np.array_equal(joined, expected[np.concatenate(parts)])

    def test_a_plan_decides_twice_alike_also_when_it_has_travelled(self, rule) -> None:
        plan = rule.plan(IDS, known(LOSSES), context())
        again = pickle.loads(pickle.dumps(plan))
        for first, second, third in zip(decided(plan), decided(plan), decided(again), strict=True):
            assert np.array_equal(first, second) and np.array_equal(first, third)

    def test_it_gives_what_it_declares(self, rule) -> None:
        plan = rule.plan(IDS, known(LOSSES), context())
        found = plan.decide(IDS, known(LOSSES))
        assert found.copies.dtype == np.int32 and found.weight.dtype == np.float32
        # no loss here lies below the cut of 0 that this rule has by default
        assert (found.copies.min() == 0) == ("keep" in rule.spec.emits and rule != ScoreCut())
        assert (found.rank is not None) == ("order" in rule.spec.emits)
        weights = plan.weigh({"loss": LOSSES, "weight": found.weight, "step": 7})
        assert (len(set(weights.tolist())) > 1) == ("weight" in rule.spec.emits)
        by_count = np.allclose(weights, found.weight / ROWS)
        assert by_count == (rule.spec.reduction == "mean_count")

    def test_rows_that_were_never_seen_are_kept(self, rule) -> None:
        if "loss" not in rule.spec.needs:
            return
        losses = LOSSES.copy()
        losses[::10] = np.nan
        found = rule.plan(IDS, known(losses), context()).decide(IDS, known(losses))
        assert (found.copies[::10] == 1).all() and (found.weight[::10] == 1).all()
        nothing = np.full(ROWS, np.nan, np.float32)
        found = rule.plan(IDS, known(nothing), context()).decide(IDS, known(nothing))
        assert (found.copies == 1).all() and (found.weight == 1).all()

    def test_infinite_and_equal_losses_and_a_pool_of_one_row_are_no_trouble(self, rule) -> None:
        wild = LOSSES.copy()
        wild[::3] = np.inf
        for losses in (wild, np.full(ROWS, 0.1, np.float32), LOSSES[:1], np.zeros(ROWS, np.float32)):
            ids = np.arange(len(losses))
            found = rule.plan(ids, known(losses), context()).decide(ids, known(losses))
            assert np.isfinite(found.weight).all() and set(found.copies.tolist()) <= {0, 1}

    def test_any_order_repetition_and_partition_of_losses_gives_the_same_plan(self, rule) -> None:
        rng = np.random.default_rng(2)
        ids, steps = rng.integers(0, ROWS, 9000), rng.integers(0, 40, 9000)
        losses, versions = rng.exponential(2, 9000), rng.integers(0, 3, 9000)
        inorder, shuffled, restored = LastLosses(ROWS), LastLosses(ROWS), LastLosses(ROWS)
        inorder.observe(ids, losses, steps, versions)
        twice = np.concatenate([rng.permutation(9000), rng.integers(0, 9000, 3000)])
        for part in np.array_split(twice, 13):
            shuffled.observe(ids[part], losses[part], steps[part], versions[part])
        restored.restore(pickle.loads(pickle.dumps(shuffled.state())))
        expected = decided(rule.plan(IDS, known(inorder.loss), context()), losses=inorder.loss)
        for other in (shuffled, restored):
            found = decided(rule.plan(IDS, known(other.loss), context()), losses=other.loss)
            for one, two in zip(expected, found, strict=True):
                assert np.array_equal(one, two, equal_nan=True)

    def test_global_random_numbers_are_neither_drawn_nor_seeded(self, rule) -> None:
        """The reference code of InfoBatch and SeTa reseeds numpy and torch, which repeats dropout's masks."""
        before = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
        decided(rule.plan(IDS, known(LOSSES), context()))
        assert before == [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]

    def test_two_epochs_and_two_seeds_decide_otherwise(self, rule) -> None:
        if rule.spec.cadence != "epoch" or "keep" not in rule.spec.emits:
            return
        if isinstance(rule, SmallLossRows):  # it goes by the losses alone, which are the same here
            return
        # SeTa without chance looks at the epoch alone
        seeds = [context(), context(seed=6)] if getattr(rule, "prune", 1) else []
        for pair in ([context(3), context(4)], seeds):
            found = [kept(rule.plan(IDS, known(LOSSES), each)) for each in pair]
            assert not found or not np.array_equal(*found)


class TestLastLosses:
    def test_by_hand(self) -> None:
        held = LastLosses(5)
        held.observe(
            np.array([1, 1, 2, 3, 3, 4]),
            np.array([9.0, 1.0, np.nan, 5.0, 6.0, 2.0]),
            np.array([4, 7, 1, 2, 2, 3]),
            np.array([0, 0, 0, 1, 0, 0]),
        )
        # row 1 has its newer loss, row 2's is not finite, row 3's newer version goes before its larger loss
        assert held.loss.tolist()[1:] == [1.0, math.inf, 5.0, 2.0] and math.isnan(held.loss[0])
        assert held.step.tolist() == [-1, 7, 1, 2, 3] and held.coverage() == 0.8
        held.observe(np.array([4, 1]), np.array([8.0, 8.0]), np.array([3, 6]), np.array([0, 9]))
        assert held.loss.tolist()[1:] == [1.0, math.inf, 5.0, 8.0]

    def test_a_row_takes_twenty_bytes(self) -> None:
        held = LastLosses(1000)
        assert held.loss.nbytes + held.step.nbytes + held.version.nbytes == 1000 * BYTES_A_ROW

    def test_ids_stay_whole_numbers_beyond_what_a_float32_can_tell_apart(self) -> None:
        # as float32, 16777217 is 16777216
        rows = LastLosses(2**24 + 2)
        one = np.ones(1, np.int64)
        rows.observe(np.array([2**24 + 1]), np.array([1.5]), one, one)
        assert rows.loss[2**24 + 1] == 1.5 and math.isnan(rows.loss[2**24])

    @given(st.lists(st.tuples(*[st.integers(0, 3)] * 4), max_size=30), st.randoms())
    @settings(max_examples=60, deadline=None)
    def test_whatever_comes_the_largest_step_version_and_loss_stands(self, records, random) -> None:
        held, best = LastLosses(4), {}
        shuffled = records + records[:5]
        random.shuffle(shuffled)
        cut = len(shuffled) // 2
        for part in (shuffled[:cut], shuffled[cut:]):
            if part:
                ids, losses, steps, versions = np.array(part, np.int64).T
                held.observe(ids, losses, steps, versions)
        for row, loss, step, version in records:
            best[row] = max(best.get(row, (-1,)), (step, version, loss))
        for row in range(4):
            known = (held.step[row], held.version[row], held.loss[row])
            assert known == best[row] if row in best else math.isnan(held.loss[row])


class TestChance:
    def test_keys_differ_and_are_uniform(self) -> None:
        drawn = keys(3, "test", 0, np.arange(200_000))
        assert len(np.unique(drawn)) == 200_000
        u = uniform(3, "test", 0, np.arange(200_000))
        counts = np.bincount((u * 10).astype(int), minlength=10)
        assert (np.abs(counts - 20_000) < 4 * math.sqrt(200_000 * 0.09)).all()
        # neighbouring ids and neighbouring epochs are as good as independent
        assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / math.sqrt(200_000)
        assert abs(np.corrcoef(u, uniform(3, "test", 1, np.arange(200_000)))[0, 1]) < 4 / math.sqrt(200_000)

    def test_the_numbers_do_not_change_between_versions(self) -> None:
        assert uniform(0, "prune", 0, np.array([0, 1, 2**40])).tolist() == pytest.approx(
            [0.8818280796334624, 0.3369378941035094, 0.6591003012896839], abs=1e-15
        )

    def test_no_number_makes_a_logarithm_infinite(self) -> None:
        u = uniform(1, "test", 0, np.arange(100_000))
        assert u.min() > 0 and u.max() < 1


class TestRandomSubset:
    def test_with_replacement_the_expected_share_of_rows_is_met(self) -> None:
        ids = np.arange(1000)

        def seen(seed: int) -> int:
            plans = [RandomSubset(0.1, True).plan(ids, {}, context(epoch, seed=seed)) for epoch in range(10)]
            return len(set(np.concatenate([kept(plan, ids, ids) for plan in plans]).tolist()))

        found = [seen(seed) for seed in range(20)]
        # 1000 * (1 - 0.9^10) = 651.3
        assert np.mean(found) == pytest.approx(651.3, abs=8)

    @pytest.mark.parametrize("ratio", [0.1, 0.25, 0.3, 1.0])
    def test_with_replacement_the_size_is_exact(self, ratio: float) -> None:
        for rows in (7, 10, 1000):
            ids = np.arange(rows)
            plan = RandomSubset(ratio, True).plan(ids, {}, context())
            assert len(kept(plan, ids, ids)) == math.floor(ratio * rows + 1e-9)

    def test_without_replacement_a_cycle_has_each_row_once(self) -> None:
        for cycle in range(2):
            slices = [kept(RandomSubset(0.1).plan(IDS, {}, context(10 * cycle + epoch))) for epoch in range(10)]
            assert sorted(np.concatenate(slices).tolist()) == IDS.tolist()
            assert all(abs(len(each) - 200) < 4 * math.sqrt(2000 * 0.09) for each in slices)
        first = [kept(RandomSubset(0.1).plan(IDS, {}, context(epoch))).tolist() for epoch in (0, 10)]
        assert first[0] != first[1]  # another cycle has another permutation

    def test_a_ratio_that_does_not_divide_one_leaves_its_rest_out_of_the_cycle(self) -> None:
        slices = [kept(RandomSubset(0.3).plan(IDS, {}, context(epoch))) for epoch in range(3)]
        union = np.concatenate(slices)
        assert len(set(union.tolist())) == len(union) == pytest.approx(0.9 * ROWS, abs=60)

    @pytest.mark.parametrize("replacement", [True, False])
    def test_rows_and_pairs_are_kept_as_often_as_they_should(self, replacement: bool) -> None:
        ids, epochs = np.arange(50), 2000
        chosen = np.array(
            [
                RandomSubset(0.2, replacement).plan(ids, {}, context(epoch)).decide(ids, {}).copies
                for epoch in range(epochs)
            ]
        )
        assert (np.abs(chosen.mean(axis=0) - 0.2) < 4 * math.sqrt(0.16 / epochs)).all()
        if replacement:  # exactly 10 of 50: 0.2 * 9 / 49
            together = (chosen.T @ chosen / epochs)[~np.eye(50, dtype=bool)]
            assert together.mean() == pytest.approx(0.2 * 9 / 49, abs=1e-9)

    def test_by_hand(self) -> None:
        ids = np.arange(6)
        u = [0.902, 0.655, 0.121, 0.123, 0.272, 0.220]
        assert uniform(5, "slice", 0, ids).tolist() == pytest.approx(u, abs=1e-3)
        # slices of a third: epoch 1 has what lies from 1/3 to 2/3
        slices = [
            kept(RandomSubset(1 / 3).plan(ids, {}, context(epoch)), ids, ids).tolist() for epoch in range(3)
        ]
        assert slices == [[2, 3, 4, 5], [1], [0]]

    def test_the_mean_gradient_is_unbiased(self) -> None:  # G1
        g = np.random.default_rng(3).normal(1.0, 0.2, 100)
        ids = np.arange(100)
        for replacement in (True, False):
            sums = [
                g[kept(RandomSubset(0.2, replacement).plan(ids, {}, context(epoch)), ids, ids)].sum() / 0.2
                for epoch in range(20_000)
            ]
            assert np.mean(sums) == pytest.approx(g.sum(), rel=1e-3)


class TestInfoBatch:
    def test_by_hand(self) -> None:
        ids, losses = np.arange(5), np.array([1.0, 2.0, 3.0, 6.0, np.nan], np.float32)
        # the mean of what is known is 3: rows 0 and 1 are easy, 2 is not below it, 4 is unseen
        found = InfoBatch(0.5).plan(ids, known(losses), context()).decide(ids, known(losses))
        # both of them drew less than a half, so both are dropped; with a chance of 0.2 only the second is
        assert uniform(5, "prune", 3, ids).tolist() == pytest.approx(
            [0.250, 0.035, 0.743, 0.406, 0.480], abs=1e-3
        )
        assert found.copies.tolist() == [0, 0, 1, 1, 1]
        assert found.weight.tolist() == [2.0, 2.0, 1.0, 1.0, 1.0]
        found = InfoBatch(0.2).plan(ids, known(losses), context()).decide(ids, known(losses))
        assert found.copies.tolist() == [1, 0, 1, 1, 1] and found.weight[0] == pytest.approx(1.25)

    @pytest.mark.parametrize("unseen", [0.0, 0.1], ids=["all seen", "a tenth never seen"])
    def test_the_weighted_gradient_sum_is_that_of_all_rows(self, unseen: float) -> None:  # G1, G5
        rng, rows = np.random.default_rng(4), 200
        ids, losses = np.arange(rows), rng.exponential(1.0, rows).astype(np.float32)
        gradients = rng.normal(1.0, 0.3, (rows, 3))
        losses[rng.random(rows) < unseen] = np.nan
        total = np.zeros(3)
        for epoch in range(20_000):
            found = InfoBatch().plan(ids, known(losses), context(epoch, 1e9)).decide(ids, known(losses))
            total += (found.copies * found.weight) @ gradients
        assert total / 20_000 == pytest.approx(gradients.sum(axis=0), rel=1e-3)

    def test_hard_rows_always_stay_and_the_saving_is_as_expected(self) -> None:
        losses = np.random.default_rng(5).exponential(1.0, 100_000).astype(np.float32)
        ids = np.arange(100_000)
        found = InfoBatch().plan(ids, known(losses), context()).decide(ids, known(losses))
        assert (found.copies[losses >= losses.mean()] == 1).all()
        # half of the 1 - 1/e below the mean
        assert 1 - found.copies.mean() == pytest.approx(0.316, abs=0.01)
        assert (found.copies * found.weight).sum() == pytest.approx(100_000, rel=0.01)
        assert set(found.weight.tolist()) == {1.0, 2.0}

    @pytest.mark.parametrize("epochs", [300, 100, 8])
    def test_weights_are_reset_also_where_the_annealing_begins_within_an_epoch(self, epochs: int) -> None:
        # 0.875 * 300 = 262.5: a library that waits for epoch 263.5 keeps the last weights for good
        pruned = [
            InfoBatch().plan(IDS, known(LOSSES), context(epoch, epochs)).decide(IDS, known(LOSSES))
            for epoch in range(epochs)
        ]
        until = math.floor(0.875 * epochs)
        assert all(found.copies.min() == 0 for found in pruned[:until])
        assert all((found.copies == 1).all() and (found.weight == 1).all() for found in pruned[until:])

    @pytest.mark.parametrize("value", [0.1, 1.1, math.log(2), 4.605])
    def test_equal_losses_are_not_all_below_their_rounded_mean(self, value: float) -> None:
        for rows in (1000, 50_000):
            losses = np.full(rows, value, np.float32)
            found = InfoBatch().plan(np.arange(rows), known(losses), context())
            assert (found.decide(np.arange(rows), known(losses)).copies == 1).all()

    def test_the_weighted_mean_divides_by_the_count(self) -> None:
        plan = InfoBatch().plan(IDS, known(LOSSES), context())
        weights = np.array([2.0, 2.0, 1.0, 1.0], np.float32)
        assert plan.weigh({"loss": LOSSES[:4], "weight": weights}).tolist() == [0.5, 0.5, 0.25, 0.25]

    def test_gradient_descent_on_average_goes_the_way_of_all_rows(self) -> None:
        rng, rows, seeds, steps = np.random.default_rng(6), 100, 400, 8
        x = rng.normal(size=(rows, 3))
        y, ids = x @ np.array([1.0, -2.0, 0.5]) + 0.3 * rng.normal(size=rows), np.arange(rows)

        def descend(seed: int | None) -> np.ndarray:
            w = np.zeros(3)
            for epoch in range(steps):
                losses = ((x @ w - y) ** 2).astype(np.float32)
                weight = np.ones(rows)
                if seed is not None:
                    plan = InfoBatch().plan(ids, known(losses), context(epoch, 1e9, seed))
                    found = plan.decide(ids, known(losses))
                    weight = found.copies * found.weight
                w = w - 0.02 * (weight * (x @ w - y)) @ x / rows
            return w

        ends = np.array([descend(seed) for seed in range(seeds)])
        error = 4 * ends.std(axis=0) / math.sqrt(seeds) + 1e-4
        assert (np.abs(ends.mean(axis=0) - descend(None)) < error).all()


class TestSeTa:
    @pytest.mark.parametrize(
        "groups, window, expected",
        [(10, 5, [1, 2, 3, 4, 5, 0, 1, 2]), (5, 4, [1, 0, 1, 0, 1]), (5, 3, [1, 2, 0, 1, 2])],
    )
    def test_the_window_starts_at_the_groups_of_the_table(self, groups, window, expected) -> None:
        rule = SeTa(0.0, groups, window)
        assert len(kept(rule.plan(IDS, known(LOSSES), context(0, 1e6)))) == ROWS
        for epoch, start in enumerate(expected, start=1):
            plan = rule.plan(IDS, known(LOSSES), context(epoch, 1e6))
            assert (plan.start, plan.end, len(plan.cuts)) == (start, start + window, groups - 1)

    def test_by_hand(self) -> None:
        # three groups that anybody would see; the window of one group in epoch 1 is the middle one
        losses = np.array([0.1, 0.11, 1.0, 1.1, 0.9, 8.0, np.nan, np.inf], np.float32)
        ids = np.arange(8)
        rule = SeTa(0.0, 3, 1)
        assert kept(rule.plan(ids, known(losses), context(1)), ids, losses).tolist() == [2, 3, 4, 6]
        # epoch 2: the hardest, with what is infinite; epoch 3: the easiest
        assert kept(rule.plan(ids, known(losses), context(2)), ids, losses).tolist() == [5, 6, 7]
        assert kept(rule.plan(ids, known(losses), context(3)), ids, losses).tolist() == [0, 1, 6]

    def test_a_row_that_was_dropped_too_often_is_kept_by_hand(self) -> None:
        losses = np.array([0.1, 0.11, 1.0, 1.1, 8.0, 8.1], np.float32)
        ages = np.array([0, 3, 0, 0, 2, 4], np.int16)
        columns = known(losses) | {"age": ages}
        plan = SeTa(0.0, 3, 1, age=3).plan(np.arange(6), columns, context(1))
        # the window has rows 2 and 3; rows 1 and 5 were dropped 3 and 4 times in a row
        assert plan.decide(np.arange(6), columns).copies.tolist() == [0, 1, 1, 1, 0, 1]

    @pytest.mark.parametrize("change", [lambda x: -x, lambda x: x - 3, lambda x: x + 2e4, lambda x: 1e-9 * x])
    def test_losses_of_any_sign_and_size_are_grouped_as_others(self, change) -> None:
        """Logarithmic bins put all losses at or below 0 into one, and large ones with small differences too."""
        plain = np.round(LOSSES.astype(np.float64), 2)
        for values in (plain, np.round(np.random.default_rng(9).exponential(2.0, 20_000), 4)):
            ids, moved = np.arange(len(values)), change(values)
            mirrored = moved[values.argmin()] > moved[values.argmax()]
            cuts, expected = cut_points(moved, 10), cut_points(-values if mirrored else values, 10)
            assert len(cuts) == 9
            found, wanted = (
                np.searchsorted(edges, each, side="right")
                for edges, each in ((cuts, moved), (expected, -values if mirrored else values))
            )
            assert (found != wanted).mean() < 0.002
            keep = kept(SeTa().plan(ids, known(moved), context(3, 1e6, rows=len(ids))), ids, moved)
            assert 0.02 < len(keep) / len(ids) < 0.98

    def test_one_outlier_is_a_group_of_its_own_and_does_not_hide_the_others(self) -> None:
        for outlier in (1e5, -1e5):
            values = np.append(np.random.default_rng(1).normal(size=9000), outlier)
            cuts = cut_points(values, 4)
            sizes = np.bincount(np.searchsorted(cuts, values, side="right"), minlength=4)
            assert sorted(sizes.tolist())[0] == 1 and sorted(sizes.tolist())[1] > 1000

    def test_few_values_are_grouped_exactly_also_where_most_are_equal(self) -> None:
        values = np.concatenate(
            [np.full(5000, 2.0), np.random.default_rng(2).normal(2, 1e-3, 3000), [5.0, 5.1]]
        )
        assert cut_points(values, 2).tolist() == [5.0]
        rng = np.random.default_rng(3)
        for _ in range(5):
            values = np.sort(rng.normal(-5, 2, 200))
            group = np.searchsorted(cut_points(values, 5), values, side="right")
            error = sum(values[group == g].var() * (group == g).sum() for g in range(5))
            assert error == pytest.approx(exact_error(values, 5), rel=1e-9)

    def test_what_is_kept_is_what_the_cuts_say(self) -> None:
        plan = SeTa(0.2, 10, 4).plan(IDS, known(LOSSES), context(3))
        edges = [-np.inf, *plan.cuts, np.inf]
        low, high = edges[plan.start], edges[plan.end]
        u = uniform(5, "prune", 3, IDS)
        assert kept(plan).tolist() == [
            row for row in range(ROWS) if u[row] >= 0.2 and low <= float(LOSSES[row]) < high
        ]

    def test_a_window_in_the_middle_leaves_out_both_ends(self) -> None:
        plan = SeTa(0.0, 10, 5).plan(IDS, known(LOSSES), context(3))
        found = kept(plan)
        assert LOSSES.argmin() not in found and LOSSES.argmax() not in found

    def test_at_the_end_only_chance_is_left(self) -> None:
        losses = np.random.default_rng(7).exponential(1.0, 50_000).astype(np.float32)
        ids = np.arange(50_000)
        found = kept(SeTa(0.3).plan(ids, known(losses), context(18, 20)), ids, losses)
        tenths = np.bincount(np.searchsorted(np.quantile(losses, np.arange(1, 10) / 10), losses[found]))
        expected = 0.7 * 5000
        assert ((tenths - expected) ** 2 / expected).sum() < 28  # chi square, 9 degrees: p < 0.001
        assert len(found) == pytest.approx(0.7 * 50_000, rel=0.02)

    def test_the_saving_is_as_expected(self) -> None:
        rule, ids = SeTa(0.1, 10, 5), IDS
        plan = rule.plan(ids, known(LOSSES), context(4))
        group = np.searchsorted(plan.cuts, LOSSES, side="right")
        share = ((plan.start <= group) & (group < plan.end)).mean()
        assert len(kept(plan)) / ROWS == pytest.approx(0.9 * share, abs=0.03)

    def test_groups_are_within_a_percent_of_the_best(self) -> None:
        values = np.random.default_rng(8).lognormal(size=3000)

        def error(cuts) -> float:
            group = np.searchsorted(cuts, values, side="right")
            return sum(values[group == g].var() * (group == g).sum() for g in range(10) if (group == g).any())

        assert error(cut_points(values, 10)) < 1.01 * exact_error(np.sort(values), 10)

    def test_few_different_losses_make_few_groups(self) -> None:
        assert cut_points(np.array([2.0, 2.0, 2.0]), 10).tolist() == [] and len(cut_points(np.empty(0), 4)) == 0
        cuts = cut_points(np.array([1.0, 1.0, 5.0, 50.0]), 10)
        assert len(cuts) == 2 and 1 < cuts[0] < 5.01 and 5 < cuts[1] < 50.4

    def test_a_window_without_groups_is_refused(self) -> None:
        for groups, window in ((5, 0), (5, 6)):
            with pytest.raises(ValueError, match="window"):
                SeTa(0.0, groups, window)


def exact_error(values: np.ndarray, groups: int) -> float:
    """Return the least sum of squares by dynamic programming over all values."""
    n = len(values)
    s, q = np.concatenate([[0], values.cumsum()]), np.concatenate([[0], (values**2).cumsum()])
    best = q[1:] - s[1:] ** 2 / np.arange(1, n + 1)
    best = np.concatenate([[0], best])
    for _ in range(groups - 1):
        new = best.copy()
        for end in range(1, n + 1):
            start = np.arange(end)
            cost = q[end] - q[start] - (s[end] - s[start]) ** 2 / (end - start)
            new[end] = (best[:end] + cost).min()
        best = new
    return float(best[n])


@pytest.mark.parametrize("make", WEIGHING, ids=lambda make: make.__name__)
class TestDynamic:
    def weights(self, rule: Dynamic, losses: np.ndarray) -> np.ndarray:
        return rule.weigh({"loss": losses})

    @pytest.mark.parametrize("temperature", [0.4, 1.0, 100.0])
    @pytest.mark.parametrize("reach", [0.5, 1.0, 2.0])
    def test_weights_are_bounded_and_sum_to_one(self, make, temperature: float, reach: float) -> None:  # G6
        losses = np.random.default_rng(9).normal(3, 0.5, 128)
        found = self.weights(make(temperature, reach), losses)
        assert found.sum() == pytest.approx(1, abs=1e-6)
        bound = math.exp((1 if make is Quadratic else reach) / temperature)
        assert found.max() / found.min() <= bound * (1 + 1e-6)
        if make is LinUpper and reach == 1 and temperature == 0.4:
            assert bound == pytest.approx(12.18, abs=0.01)

    def test_they_follow_the_rows_and_only_the_losses_shape(self, make) -> None:
        losses, order = np.random.default_rng(10).normal(3, 0.5, 64), np.random.default_rng(11).permutation(64)
        found = self.weights(make(0.4), losses)
        assert self.weights(make(0.4), losses[order]) == pytest.approx(found[order], rel=1e-12)
        assert self.weights(make(0.4), 7 * losses - 2) == pytest.approx(found, rel=1e-9)

    def test_a_high_temperature_is_the_plain_mean(self, make) -> None:
        assert self.weights(make(1e9), LOSSES[:50]) == pytest.approx(np.full(50, 0.02), rel=1e-6)

    def test_equal_losses_and_one_loss_weigh_alike(self, make) -> None:
        assert self.weights(make(), np.full(8, 4.605, np.float32)) == pytest.approx(np.full(8, 0.125))
        assert self.weights(make(), np.array([2.5])) == pytest.approx([1.0])

    def test_ranks_of_any_sizes_weigh_as_one_would(self, make) -> None:  # G3
        rule, losses = make(0.4), np.random.default_rng(12).normal(3, 0.5, 64)
        ranks = np.split(losses, [10, 16, 48])
        # three numbers go round: the least, the largest, and the sum
        least, largest = min(part.min() for part in ranks), max(part.max() for part in ranks)
        raised = [rule.raised(part, least, largest) for part in ranks]
        total = sum(part.sum() for part in raised)
        assert np.concatenate(raised) / total == pytest.approx(self.weights(rule, losses), abs=1e-7)


@pytest.mark.parametrize(
    "make, heights",
    # losses 1, 2, 3, 5: h = -1, -0.5, 0, 1
    [(LinUpper, [0, 0.5, 1, 1]), (Quadratic, [0, 0.75, 1, 0]), (Extremes, [1, 0.5, 0, 1])],
)
def test_dynamic_weights_by_hand(make, heights: list[float]) -> None:
    found = make(0.5).weigh({"loss": np.array([1.0, 2.0, 3.0, 5.0])})
    raised = [math.exp(height / 0.5) for height in heights]
    assert found == pytest.approx([each / sum(raised) for each in raised], rel=1e-12)


def test_dynamic_weights_begin_after_the_burn_in_by_hand() -> None:
    rule, losses = LinUpper(0.5, burn_in=10), np.array([1.0, 2.0, 3.0, 5.0])
    assert rule.weigh({"loss": losses, "step": np.array(9)}).tolist() == [0.25] * 4
    after = LinUpper(0.5).weigh({"loss": losses})
    assert rule.weigh({"loss": losses, "step": np.array(10)}) == pytest.approx(after)
    # tensors alike, each member of a stack at its own step
    both = torch.func.vmap(lambda loss, step: rule.weigh({"loss": loss, "step": step}))(
        torch.tensor(losses).expand(2, 4), torch.tensor([9, 10])
    )
    assert both[0].tolist() == [0.25] * 4 and both[1].numpy() == pytest.approx(after)


class TestHardness:
    def test_by_hand(self) -> None:
        probabilities = np.array([[0.9, 0.7], [0.2, np.nan], [np.nan, np.nan]])
        found = hardness(probabilities)
        assert found[:2] == pytest.approx([0.2, 0.8]) and math.isnan(found[2])

    def test_a_flipped_label_is_hard_and_a_wide_margin_easy(self) -> None:
        margins = np.random.default_rng(13).normal(2, 1, 500)
        found = hardness(1 / (1 + np.exp(-margins[:, None] * np.array([0.5, 1.0, 2.0]))))
        assert np.array_equal(np.argsort(found), np.argsort(-margins))
        assert (found[margins < 0] > 0.5).all()

    def test_levels_hold_their_shares_and_ignore_the_scale(self) -> None:
        values = np.random.default_rng(14).normal(size=1000)
        found = levels(values)
        assert [(found == level).sum() for level in ("easy", "medium", "hard")] == [300, 400, 300]
        assert np.array_equal(levels(np.exp(values)), found)
        assert levels(np.array([2.0, 4.0, 5.0, np.nan]), (2, 4)).tolist() == ["easy", "hard", "hard", "unknown"]
        assert levels(np.full(5, 3.0)).tolist() == ["easy"] * 5

    def test_the_recovered_gap_by_hand(self) -> None:
        rng = np.random.default_rng(0)
        none, hard = np.full(5, 0.4), np.full(5, 0.8)
        for easy, share in ((0.8, 1.0), (0.4, 0.0), (0.6, 0.5)):
            assert recovered_gap(none, np.full(5, easy), hard, rng).share == pytest.approx(share)
        gap = recovered_gap(none, np.array([0.5, 0.6, 0.7]), hard, rng)
        assert gap.share == pytest.approx(0.5) and gap.low < gap.share < gap.high
        with pytest.raises(ValueError, match="must gain at least"):
            recovered_gap(none, none, none, rng)
        with pytest.raises(ValueError, match="must gain at least"):
            recovered_gap(none, none, none, rng, least=0.0)
        # of single repeats the interval would have no width
        with pytest.raises(ValueError, match="at least 2 repeats of each, but got 1, 1, 1"):
            recovered_gap(np.array([0.4]), np.array([0.6]), np.array([0.8]), rng)

    def test_rows_come_easy_first_and_unknown_ones_where_they_are(self) -> None:
        losses = np.array([3.0, np.nan, 1.0], np.float32)
        columns = known(losses) | {"score": np.array([1.0, 2.0, np.nan])}
        for by, order in (("loss", [2, 0]), ("score", [0, 1])):
            rank = EasyToHard(by).plan(IDS[:3], columns, context()).decide(IDS[:3], columns).rank
            assert rank is not None and rank[order[0]] < rank[order[1]] and np.isnan(rank).sum() == 1
        assert EasyToHard("score").spec.needs == {"score"} and EasyToHard("loss").spec.cadence == "epoch"


class TestSmallLossRows:
    """The rows of two modes: 800 losses around 0.3 and 200 around 2."""

    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.normal(0.3, 0.1, 800), rng.normal(2.0, 0.3, 200)])

    def dropped(self, rule: SmallLossRows, epoch: int = 1, **columns) -> np.ndarray:
        found = {"loss": self.losses, "age": np.zeros(1000), "score": self.losses[::-1]} | columns
        ids = np.arange(len(found["loss"]))
        plan = rule.plan(ids, found, context(epoch, rows=len(ids)))
        return np.flatnonzero(plan.decide(ids, found).copies == 0)

    def test_one_outlier_does_not_change_the_split(self) -> None:
        # gate G7: scaled by least and largest, one loss of 60 would squeeze all others into one mode
        found = self.dropped(SmallLossRows())
        assert set(found) == set(range(800, 1000))
        wild = np.append(self.losses, 60.0)
        with_outlier = self.dropped(SmallLossRows(), loss=wild, age=np.zeros(1001))
        assert set(with_outlier) == set(found) | {1000}

    def test_equal_losses_and_the_first_epochs_keep_all(self) -> None:
        assert not len(self.dropped(SmallLossRows(), loss=np.ones(1000)))
        assert not len(self.dropped(SmallLossRows(), epoch=0))
        assert not len(self.dropped(SmallLossRows(after=3), epoch=2))

    def test_epochs_of_even_number_go_by_the_score(self) -> None:
        by_loss, by_score = set(range(800, 1000)), set(range(200))
        for epoch, expected in ((1, by_loss), (2, by_score), (3, by_loss)):
            assert set(self.dropped(SmallLossRows(alternate="high"), epoch)) == expected
        low = self.dropped(SmallLossRows(alternate="low"), 2, score=-self.losses[::-1])
        assert set(low) == by_score

    def test_a_row_that_was_left_out_long_enough_is_read_with_weight_0(self) -> None:
        age = np.where(np.arange(1000) < 900, 1, 2)
        columns = {"loss": self.losses, "age": age, "score": self.losses}
        plan = SmallLossRows().plan(np.arange(1000), columns, context(1, rows=1000))
        found = plan.decide(np.arange(1000), columns)
        assert found.copies.tolist() == [1] * 800 + [0] * 100 + [1] * 100
        assert found.weight.tolist() == [1.0] * 900 + [0.0] * 100
        # the mean is over the rows that count; in a batch that has none of them nothing is trained
        weights = np.array([1.0, 0.0, 1.0, 0.0], np.float32)
        assert plan.weigh({"loss": weights, "weight": weights}).tolist() == [0.5, 0.0, 0.5, 0.0]
        assert plan.weigh({"loss": weights, "weight": 0 * weights}).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: SmallLossRows(1.0),
        lambda: SmallLossRows(after=0),
        lambda: SmallLossRows(again=0),
        lambda: SmallLossRows(alternate="both"),
        lambda: RandomSubset(0.0),
        lambda: RandomSubset(1.5),
        lambda: InfoBatch(0.95),
        lambda: InfoBatch(0.5, 1.5),
        lambda: SeTa(-0.1),
        lambda: SeTa(until=2.0),
        lambda: LinUpper(0.0),
        lambda: LinUpper(1.0, 0.0),
        lambda: LinUpper(1.0, 1.0, -1),
        lambda: SeTa(age=0),
        lambda: EasyToHard("length"),
        lambda: LinUpper(math.nan),
    ],
)
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(ValueError, match="but got"):
        make()
