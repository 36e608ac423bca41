"""The contract of all mixing policies, and the plain ones by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.mixers.plain import EndUpsampling, Fixed, Proportional, Random, Stages, Stratified, Temperature
from policies.mixers.rules import MIXERS
from policies.mixers.visits import (
    ALIGNMENT,
    EXCESS,
    TRAINING,
    VALIDATION,
    Groups,
    Mixing,
    Outcome,
    State,
    Visit,
    begin,
    join,
    left,
    mixture,
    observe,
    plan,
)

THREE = Groups(("code", "docs", "law"), (4000, 2000, 1000), 16, 200)

EXAMPLES: dict[str, Any] = {
    "fixed": Fixed((0.5, 0.3, 0.2)),
    "stratified": Stratified(),
    "proportional": Proportional(),
    "temperature": Temperature(),
    "random": Random(),
    "stages": Stages(((0, (1.0, 0.0, 0.0)), (50, (0.0, 0.5, 0.5)))),
    "end_upsampling": EndUpsampling((0.2, 0.2, 0.6)),
}


def outcome(visit: Visit, groups: Groups, rng: np.random.Generator) -> Outcome:
    """Return random measurements of everything that a visit asks for."""
    shape = visit.steps, groups.count
    positive = lambda *size: rng.uniform(0.5, 3.0, size)  # noqa: E731
    seen = np.where(visit.counts > 0, 1.0, np.nan).reshape(shape)
    return Outcome(
        training=positive(*shape) * seen if TRAINING in visit.signals else None,
        validation=tuple(positive(12) for _ in groups.targets) if VALIDATION in visit.signals else None,
        excess=positive(*shape) * seen if EXCESS in visit.signals else None,
        alignment=rng.standard_normal((*shape, len(groups.targets))) if ALIGNMENT in visit.signals else None,
        norms=positive(*shape) if ALIGNMENT in visit.signals else None,
    )


def run(mixing: Mixing, groups: Groups, seed: int, limit: int | None = None) -> tuple[list[Visit], list[State]]:
    state = begin(mixing, groups, seed)
    visits, states, rng = [], [state], np.random.default_rng(seed)
    while left(groups, state):
        visit, waiting = plan(mixing, groups, state, limit)
        again, _ = plan(mixing, groups, waiting, limit)
        assert visit.name == again.name and (visit.counts == again.counts).all()
        state = observe(mixing, groups, waiting, visit, outcome(visit, groups, rng))
        visits.append(visit)
        states.append(state)
    return visits, states


@pytest.mark.parametrize("name", MIXERS)
def test_every_policy_trains_exactly_the_budget_in_whole_batches(name: str) -> None:
    for limit in (None, 7):
        visits, states = run(Mixing(EXAMPLES[name]), THREE, 1, limit)
        assert sum(visit.steps for visit in visits) == 200
        for visit in visits:
            assert visit.counts.shape == (visit.steps, 3) and (visit.counts >= 0).all()
            assert (visit.counts.sum(axis=1) == 16).all()
        assert states[-1]["seen"].tolist() == sum(visit.counts.sum(axis=0) for visit in visits).tolist()
        assert states[-1]["evaluations"] == sum(VALIDATION in visit.signals for visit in visits)
