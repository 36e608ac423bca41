"""Members that follow a mixing policy: alone, in a stack, cloned and checkpointed in the middle of a probe."""

import numpy as np
import pytest

from shoal.cluster import nests
from shoal.policies.mixers.ado import ADO
from shoal.policies.mixers.aioli import Aioli
from shoal.policies.mixers.mixer import VALIDATION, Groups, Visit
from shoal.policies.mixers.plain import Fixed
from shoal.policies.mixers.visits import BoundedMixing
from shoal.policies.population import Order
from shoal.search.config.mixing import PROBED, with_numbers
from shoal.search.corpus.batches import MixedBatches
from shoal.search.members.mixed import Mixed, VisitBatches, mixed_class
from shoal.search.worker.teams import teams
from shoal.trainables.language import LanguageModel
from shoal.trainables.settings import DecoderShape, Recipe

SHAPE = DecoderShape(vocabulary=16, sequence_length=8, layers=1, heads=1, width=8)
NAMES = ("code", "law")
AIOLI = Aioli(every=10, probe_share=0.6, sweeps=1, noise=0.0, rate=0.5)  # probes of 3 steps


class Counting:
    """A group whose rows all hold one token, and in the first place the number of the row."""

    def __init__(self, token: int):
        self.token = token

    def take(self, cursor: int, count: int) -> np.ndarray:
        rows = np.full((count, 8), self.token, dtype=np.uint16)
        rows[:, 0] = (np.arange(cursor, cursor + count)) % 16
        return rows


def batches() -> MixedBatches:
    return MixedBatches({"code": Counting(3), "law": Counting(5)}, np.array([0.5, 0.5]), 4)


def member(policy=AIOLI, seed: int = 0, **hyperparameters) -> Mixed:
    rows = np.random.default_rng(7).integers(0, 16, (2, 6, 8)).astype(np.uint16)
    by_group = dict(zip(NAMES, rows, strict=True))
    held_out = dict.fromkeys(("validation", "test", PROBED), by_group)
    groups = Groups(NAMES, (100, 50), batch=4, steps=40)
    recipe = Recipe(steps=40, warmup=2, learning_rate=0.01)
    given = {"mixing": BoundedMixing(policy, floor=0.1), "groups": groups, "shape": SHAPE}
    return mixed_class(LanguageModel)(recipe, hyperparameters, batches(), held_out, seed, **given)


def same(first, second) -> bool:
    return nests.dumps(first) == nests.dumps(second)


def test_rows_come_as_the_visit_says_and_losses_go_back_by_group() -> None:
    given = VisitBatches(batches())
    counts = np.array([[3, 1], [4, 0]])
    given.begin(Visit(2, counts, frozenset(), "train", np.array([0.75, 0.25])))
    first, second = given.next(), given.next()
    assert first["rows"][:, 1].tolist() == [3, 3, 3, 5] and second["rows"][:, 1].tolist() == [3] * 4
    assert first["rows"][:, 0].tolist() == [0, 1, 2, 0] and second["rows"][:, 0].tolist() == [3, 4, 5, 6]
    # a group's weight is shared out among its rows: 0.75 / 3 and 0.25 / 1; alone in a batch it has all of it
    assert first["weights"].tolist() == [0.25, 0.25, 0.25, 0.25]
    assert second["weights"].tolist() == [0.25] * 4
    assert given.left == 0
    given.observe(np.array([[1.0, 2.0, 3.0, 7.0], [4.0, 4.0, 4.0, 8.0]]))
    assert given.losses[0].tolist() == [2.0, 7.0]
    assert given.losses[1][0] == 5.0 and np.isnan(given.losses[1][1])


def test_probes_are_steps_of_the_budget_and_evaluations_are_counted() -> None:
    trained = member()
    for _ in range(4):
        trained.train(10)
    state = trained.mixing_state
    assert trained.trained == state["step"] == 40 and state["seen"].sum() == 160
    # each of four rounds has two probes of three steps; losses are needed before the first and after each visit
    assert state["probe_steps"] == 24
    assert state["evaluations"] == 1 + 3 * 3 + 2
    assert sum(trained.batches.mixed.cursors) == 160
    account = trained.account()
    assert sum(group.proportion for group in account.groups) == pytest.approx(1.0)
    assert min(group.proportion for group in account.groups) >= 0.1
    assert len(account.groups[0].effects) == 2


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_clone_made_in_the_middle_of_a_probe_goes_on_as_its_donor(steps: int) -> None:
    donor, clone = member(seed=1), member(seed=2)
    donor.train(steps)
    clone.train(7)
    clone.load(nests.loads(nests.dumps(donor.state())), {})
    assert donor.mixing_state["part"] or steps == 5
    for each in (donor, clone):
        each.train(14)
    assert same(donor.state(), clone.state())


def test_ready_points_do_not_change_what_is_trained() -> None:
    often, once = member(), member()
    for _ in range(20):
        often.train(1)
    once.train(20)
    assert same(often.state(), once.state())


def test_a_stack_trains_each_member_on_its_own_mixture() -> None:
    settings = [{"mixing": {"rate": 0.1}}, {"mixing": {"rate": 2.0, "floor": 0.2}}]
    alone = [member(seed=seed, **values) for seed, values in enumerate(settings)]
    alone.append(member(Aioli(every=14, probe_share=0.5, sweeps=1, noise=0.0), seed=2))
    together = [member(seed=seed, **values) for seed, values in enumerate(settings)]
    together.append(member(Aioli(every=14, probe_share=0.5, sweeps=1, noise=0.0), seed=2))
    (team,) = teams(dict(enumerate(together)), stack=True)
    rows = team.train(25)
    for number, each in enumerate(alone):
        loss = each.train(25)
        assert rows[number].train_loss == pytest.approx(loss, rel=1e-4)
        assert together[number].mixing_state["seen"].tolist() == each.mixing_state["seen"].tolist()
        assert rows[number].mixture.groups[0].proportion == pytest.approx(
            each.account().groups[0].proportion, rel=1e-3
        )


def test_a_copy_inside_a_stack_takes_the_mixture_and_the_new_settings() -> None:
    members = {number: member(seed=number) for number in range(2)}
    (team,) = teams(members, stack=True)
    team.train(12)
    before = members[0].mixing_state
    team.copy([Order(1, 0, {"mixing": {"rate": 1.5}})])
    assert same(members[1].mixing_state, before)
    assert members[1].mixing.policy.rate == 1.5 and members[0].mixing.policy.rate == 0.5
    assert members[1].hyperparameters == {"mixing": {"rate": 1.5}}


def test_a_policy_hears_the_training_losses_of_its_groups() -> None:
    trained = member(ADO(every=4, refit=10, skip=2))
    trained.train(30)
    assert np.isfinite(trained.mixing_state["policy"]["last"]).all()
    assert VALIDATION not in trained.mixing.policy.signals and trained.mixing_state["evaluations"] == 0


def test_a_mixture_without_a_policy_is_what_plain_proportions_are() -> None:
    trained = member(Fixed((0.75, 0.25)))
    trained.train(20)
    assert trained.mixing_state["seen"].tolist() == [60, 20]


def test_settings_go_to_the_policy_or_to_its_bounds() -> None:
    changed = with_numbers(BoundedMixing(AIOLI, floor=0.1), {"rate": 0.9, "floor": 0.2})
    assert (changed.policy.rate, changed.floor) == (0.9, 0.2)
    with pytest.raises(TypeError):
        with_numbers(BoundedMixing(AIOLI), {"velocity": 1.0})
