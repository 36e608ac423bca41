"""Batches under a sampling policy, and members that train on them."""

import numpy as np
import pytest
import torch

from shoal.cluster import nests
from shoal.cluster.row_order import RowOrder
from shoal.policies.mixing import normalise
from shoal.policies.sampling.dynamic import LinUpper
from shoal.policies.sampling.hardness import EasyToHard
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.policies.sampling.losses import LastLosses
from shoal.policies.sampling.random_subset import RandomSubset
from shoal.policies.sampling.seta import SeTa
from shoal.policies.sampling.small_loss import SmallLossRows
from shoal.search.corpus.batches import MixedBatches
from shoal.search.members.kept import KeptRows
from shoal.search.members.sampled import SampledBatches, sample_arrays, sample_member
from shoal.search.members.views import Pace, Shared
from shoal.trainables.batches import Shuffled
from shoal.trainables.language import LanguageModel
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import HELD_OUT, SHAPE, equal, points
from tests.helpers.members import language as plain

RULES = [
    RandomSubset(0.3),
    SeTa(0.1, 4, 2),
    InfoBatch(0.5),
    LinUpper(0.4, burn_in=5),
    EasyToHard("loss"),
    SmallLossRows(),
]
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)


class Memory:
    """Rows of one group in memory; every token of a row says which it is."""

    def __init__(self, group: str, rows: int):
        self.order = RowOrder(group, [rows], 0)
        self.rows = ((np.arange(rows)[:, None] + np.arange(12)) % 31).astype(np.uint16)

    def place(self, reader: object, cursor: int) -> int:
        return cursor

    def take(self, cursor: int, count: int) -> np.ndarray:
        return self.rows[self.order.places(cursor, count)]

    def pick(self, rows: np.ndarray) -> np.ndarray:
        return self.rows[rows]


STREAMS = {"code": Memory("code", 40), "law": Memory("law", 24)}


def mixed(rule, steps: int = 40, seed: int = 0) -> SampledBatches:
    pace = Pace(steps)
    pools = {name: KeptRows(stream, rule, seed, pace) for name, stream in STREAMS.items()}
    return SampledBatches(MixedBatches(pools, normalise([1, 1]), 8), list(pools.values()), rule, pace)


def language(rule, seed: int = 0, **hyperparameters) -> LanguageModel:
    recipe = Recipe(steps=40, warmup=4)
    return LanguageModel(recipe, hyperparameters, mixed(rule, 40, seed), HELD_OUT, seed, shape=SHAPE)


def sampled_points(rule, seed: int = 0):
    member = points(seed)
    member.batches = sample_arrays(member.batches, rule, seed, 60)
    return member


MAKERS = [language, sampled_points]
makers = pytest.mark.parametrize("make", MAKERS, ids=["text", "arrays"])


def test_without_a_choice_every_row_comes_once_an_epoch_in_the_streams_order() -> None:
    pool = KeptRows(STREAMS["code"], RandomSubset(1.0), 0, Pace(10), epochs=10.0)
    rows = np.concatenate([pool.take(0, 8) for _ in range(10)])
    assert np.array_equal(rows, STREAMS["code"].take(0, 80))


def test_an_epoch_gives_the_kept_rows_once_in_their_order() -> None:
    pool = KeptRows(STREAMS["code"], RandomSubset(0.5), 7, Pace(10), epochs=10.0)
    for epoch in range(4):
        count, places = pool.left(), pool.stream.order.places(epoch * 40, 40)
        expected = pool.stream.rows[places[pool.keep[places]]]
        assert pool.epoch == epoch and count == len(expected) > 0
        # cut anywhere
        found = np.concatenate([pool.take(0, count // 2), pool.take(0, count - count // 2)])
        assert np.array_equal(found, expected)
        if pool.position % 40:  # what is left are dropped rows
            assert pool.left() == 0
            pool.position = (epoch + 1) * 40


def test_nobody_is_dropped_longer_than_the_age_whatever_becomes_of_the_losses() -> None:
    """A stale loss is too high: without a cap a row would wait for a window that never comes."""
    pool = KeptRows(Memory("code", 60), SeTa(0.0, 6, 2, until=1.0, age=4), 0, Pace(10), epochs=1e6)
    rng, waited, longest = np.random.default_rng(0), np.zeros(60, int), 0
    for epoch in range(40):
        pool.position = 60 * epoch
        pool.begin()
        waited = np.where(pool.keep, 0, waited + 1)  # epochs in a row without the row
        assert pool.age.tolist() == waited.tolist()
        longest = max(longest, int(waited.max()))
        ids = np.flatnonzero(pool.keep)
        losses = np.exp(rng.normal(-0.2 * epoch, 0.1, len(ids)))  # what is trained falls, what waits stays
        pool.observe(ids, losses, np.full(len(ids), epoch))
    assert longest == 4


def test_epochs_are_expected_by_where_the_running_one_ends() -> None:
    # 5 batches of 8 are the first epoch; if all 40 rows are kept the second ends after 10 of 20: so there are 4
    pace = Pace(20)
    pool = KeptRows(STREAMS["code"], RandomSubset(1.0), 0, pace)
    assert pool.expected(0) == np.inf
    for _ in range(5):
        pool.take(0, 8)
        pace.drawn += 1
    assert pool.expected(1) == pytest.approx(4.0)
    # of 20 rows it ends after 7.5 batches
    pool.keep[:20] = False
    assert pool.expected(1) == pytest.approx(2 * 20 / 7.5)


def test_an_epoch_that_would_keep_nothing_keeps_all() -> None:
    pool = KeptRows(Memory("few", 3), RandomSubset(0.1, replacement=True), 0, Pace(10), epochs=10.0)
    assert len(pool.take(0, 5)) == 5


def test_weights_and_losses_belong_to_the_rows_of_the_batch() -> None:
    batches = mixed(InfoBatch(0.5))
    value = np.array([[float(row) for row in range(40)], [float(row) for row in range(24)] + [np.nan] * 16])
    for _ in range(30):
        batch = batches.next()
        drawn = batches.waiting[0]
        ids = [rows for _, rows in drawn]
        firsts = np.concatenate([pool.stream.rows[rows] for pool, rows in drawn])
        assert np.array_equal(batch["rows"], firsts)
        assert np.array_equal(
            batch["weights"]["kept"], np.concatenate([pool.weight[rows] for pool, rows in drawn])
        )
        losses = np.concatenate([value[place, rows] for place, rows in enumerate(ids)])
        batches.observe(losses[None].astype(np.float32))
    for place, pool in enumerate(batches.pools):
        assert np.array_equal(pool.view.losses(), value[place, : pool.rows].astype(np.float32))
        # rows below the mean were dropped by half, and those that stay count twice
        assert set(pool.weight.tolist()) == {1.0, 2.0}
        assert pool.keep[value[place, : pool.rows] > np.nanmean(value[place])].all()
    assert 0.6 < batches.kept < 0.9


def test_the_share_that_anneals_is_one_of_the_steps_however_long_epochs_become() -> None:
    batches, annealed = mixed(InfoBatch(0.5, until=0.5), steps=60), []
    for step in range(60):
        batches.next()
        ids = np.concatenate([rows for _, rows in batches.waiting[0]])
        batches.observe(ids[None].astype(np.float32))
        if batches.pools[0].keep.all() and batches.pools[0].epoch > 0:
            annealed.append(step)
    # an epoch of 10 batches when all is kept, some 7 when a quarter is dropped
    assert annealed and annealed == list(range(annealed[0], 60)) and abs(annealed[0] - 30) <= 8


@rules
@makers
class TestMembers:
    def test_a_clone_and_a_resumed_member_go_on_as_the_donor(self, make, rule) -> None:
        donor, clone, resumed = make(rule, 1), make(rule, 1), make(rule, 1)
        donor.train(9)
        clone.train(4)
        clone.load(donor.state(), {})
        resumed.load(nests.loads(nests.dumps(donor.state())), {})
        assert donor.train(9) == clone.train(9) == resumed.train(9)
        assert equal(donor.state(), clone.state()) and equal(donor.state(), resumed.state())

    def test_a_stack_trains_as_its_members_do_alone(self, make, rule) -> None:
        alone, stacked = [make(rule, seed) for seed in range(3)], [make(rule, seed) for seed in range(3)]
        stack = Stack(stacked)
        for _ in range(3):
            assert stack.train(6) == pytest.approx([member.train(6) for member in alone], abs=1e-5)
        for one, other in zip(alone, stacked, strict=True):
            for name, array in one.state()["weights"].items():
                assert np.allclose(array, other.state()["weights"][name], atol=1e-5), name
            for pool, same in zip(one.batches.pools, other.batches.pools, strict=True):
                assert pool.position == same.position and np.array_equal(pool.keep, same.keep)
                assert np.allclose(pool.view.losses(), same.view.losses(), atol=1e-5, equal_nan=True)


def test_losses_of_training_are_those_of_the_rows() -> None:
    member = language(SeTa(0.0, 4, 2))
    drawn = [
        (pool, rows) for batch in [member.batches.next()] for pool, rows in member.batches.waiting[0] if batch
    ]
    member.batches.load(member.batches.state())
    fresh = language(SeTa(0.0, 4, 2))
    fresh.train(1)
    for pool, rows in drawn:
        same = fresh.batches.pools[member.batches.pools.index(pool)]
        assert np.isfinite(same.view.losses()[rows]).all() and np.isfinite(same.view.losses()).sum() == len(
            rows
        )


def test_a_loss_without_rows_cannot_be_sampled() -> None:
    member = sampled_points(RandomSubset(0.5))
    member.loss = lambda module, batch, numbers: module(batch[0], 0.0).mean()
    with pytest.raises(ValueError, match="loss of each row"):
        member.train(1)


def test_a_weighted_step_is_the_gradient_of_the_weighted_sum() -> None:
    """By finite differences, with the weights held still."""
    member = sampled_points(LinUpper(0.4))
    member.module.double().eval()
    batch = member.batches.next()
    rows = [torch.from_numpy(part) for part in batch["rows"]]
    rows[0] = rows[0].double()
    weights = {name: torch.from_numpy(part) for name, part in batch["weights"].items()}
    numbers = {"dropout": 0.0, "label_smoothing": 0.0}
    loss, losses = member.objective(member.module, {"rows": rows, "weights": weights}, numbers)
    weight = member.module.last.weight
    (gradient,) = torch.autograd.grad(loss, [weight])
    still = LinUpper(0.4).weigh({"loss": losses.detach()})
    assert still.sum().item() == pytest.approx(1) and still.std() > 0
    with torch.no_grad():
        sums = []
        for step in (1e-5, -2e-5):
            weight[1, 2] += step
            sums.append((still * member.loss(member.module, rows, numbers)).sum().item())
    assert gradient[1, 2].item() == pytest.approx((sums[0] - sums[1]) / 2e-5, rel=1e-5)


def test_arrays_are_read_in_another_order_each_epoch() -> None:
    batches = sample_arrays(Shuffled(np.arange(20), batch=5, seed=3), RandomSubset(1.0), 0, 8)
    epochs = [np.concatenate([batches.next()["rows"] for _ in range(4)]).tolist() for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20)) and epochs[0] != epochs[1]


class Marked:
    """The ledger of a brood and its sender in one, without Ray."""

    def __init__(self, rows: int):
        self.book, self.marks, self.ledger, self.forgotten = LastLosses(rows), {}, self, 0
        self.mark(0)

    def mark(self, mark: int) -> None:
        self.marks[mark] = self.book.loss.copy()

    def read(self, column: str, mark: int) -> np.ndarray:
        return self.marks[mark]

    def send(self, *records: np.ndarray) -> None:
        self.book.observe(*records)

    def flush(self) -> None:
        pass

    def saved(self, mark: int) -> None:
        self.forgotten = mark


@pytest.mark.parametrize("first", [0, 1], ids=["the first trains first", "the second trains first"])
def test_members_that_share_a_view_decide_by_all_losses_of_the_rounds_before(first: int) -> None:
    def brood() -> tuple[Marked, list[LanguageModel]]:
        marked, members = Marked(2 * 64), []
        shared = Shared(marked, 64, interval=5)  # the second brood of two
        for number in range(2):
            member = language(InfoBatch(0.5), number)
            member.batches = MixedBatches(STREAMS, normalise([1, 1]), 8)
            sample_member(member, InfoBatch(0.5), 0, 40, number, shared)
            members.append(member)
        return marked, members

    marked, members = brood()
    order = [members[first], members[1 - first]]
    for round_ in range(1, 7):
        for member in order:
            member.train(5)
        marked.mark(round_)
    assert np.isnan(marked.book.loss[:64]).all() and np.isfinite(marked.book.loss[64:]).all()
    assert marked.forgotten == 5  # in round 6
    pools = [member.batches.pools for member in members]
    for mine, others in zip(*pools, strict=True):
        assert mine.epoch > 1 and np.array_equal(mine.keep, others.keep) and not mine.keep.all()
        assert np.array_equal(mine.weight, others.weight) and mine.position == others.position
    # the very same, whoever trains first
    again, others = brood()
    for round_ in range(1, 7):
        for member in others:
            member.train(5)
        again.mark(round_)
    assert np.array_equal(again.book.loss, marked.book.loss, equal_nan=True)
    assert all(equal(one.state(), two.state()) for one, two in zip(members, others, strict=True))


def test_only_members_with_rows_can_be_sampled() -> None:
    with pytest.raises(ValueError, match="must be `Shuffled`, got Rows"):
        sample_member(plain(), RandomSubset(0.5), 0, 10, 0)
