"""Reports without a score: nothing is decided about a member until it has one again."""

import numpy as np
import pytest

from shoal.policies.halving import Cull
from shoal.policies.population import Report, decide, start
from shoal.policies.rules import EXPLOITS, Rules
from shoal.policies.schedule import Setting, keep_to
from shoal.policies.space import Float

SPACE = {"rate": Float(0.1, 1.0)}


def reports(step: int, scores: list[float | None]) -> list[Report]:
    return [Report(member, step, score) for member, score in enumerate(scores)]


def test_a_member_stands_as_at_its_last_score() -> None:
    rules = Rules(exploit=EXPLOITS["truncation"](fraction=0.5), cull=Cull(grace=10))
    state, _ = decide(rules, SPACE, start(SPACE, 4, 0), reports(10, [1.0, 2.0, 3.0, 4.0]), 0)
    after, orders = decide(rules, SPACE, state, reports(20, [None] * 4), 0)
    assert not orders
    for before, now in zip(state, after, strict=True):
        assert now == before._replace(decisions=before.decisions + 1)


def test_they_copy_again_with_the_next_scores() -> None:
    """Two of four are the worst half: at step 30 they copy, though nothing was heard at step 20."""
    rules = Rules(exploit=EXPLOITS["truncation"](fraction=0.5))
    state = start(SPACE, 4, 0)
    state, first = decide(rules, SPACE, state, reports(10, [None] * 4), 0)
    state, second = decide(rules, SPACE, state, reports(20, [None] * 4), 0)
    state, third = decide(rules, SPACE, state, reports(30, [1.0, 2.0, 3.0, 4.0]), 0)
    assert not first and not second
    assert [order.member for order in third] == [0, 1]
    assert {order.donor for order in third} <= {2, 3}


def test_a_member_that_fails_in_between_is_replaced_at_once() -> None:
    rules = Rules(exploit=EXPLOITS["truncation"](fraction=0.5))
    state, _ = decide(rules, SPACE, start(SPACE, 4, 0), reports(10, [4.0, 4.0, 4.0, 4.0]), 0)
    _, orders = decide(rules, SPACE, state, reports(20, [float("nan"), None, None, None]), 0)
    assert [order.member for order in orders] == [0]


@pytest.mark.parametrize("kind", sorted(EXPLOITS))
def test_no_rule_copies_without_scores(kind: str) -> None:
    state = start(SPACE, 16, 0)
    rules = Rules(exploit=EXPLOITS[kind]())
    rng = np.random.default_rng(0)
    for step in range(10, 60, 10):
        state, orders = decide(rules, SPACE, state, reports(step, [None] * 16), 0)
        assert not orders
    state, _ = decide(rules, SPACE, state, reports(60, rng.normal(size=16).tolist()), 0)
    _, orders = decide(rules, SPACE, state, reports(70, [None] * 16), 0)
    assert not orders


def test_a_schedule_is_kept_without_scores() -> None:
    schedule = [Setting(0, {"rate": 0.1}), Setting(20, {"rate": 0.5})]
    state = start(SPACE, 1, 0)
    state, _ = keep_to(schedule, state, [Report(0, 10, 1.0)])
    state, orders = keep_to(schedule, state, [Report(0, 20, None)])
    assert orders[0].hyperparameters == {"rate": 0.5} and state[0].score == 1.0
