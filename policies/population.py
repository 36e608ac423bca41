"""Population based training (Jaderberg et al., 2017) as one pure decision.

Reports go in, orders come out. Nothing here reads a clock, a file or a global generator: the random
numbers of a decision depend on (run seed, member, number of the decision) alone, so neither the order
in which reports arrive nor a restart changes what is decided.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from policies.exploit import Exploit, NoExploit, Truncation
from policies.explore import Explore, Perturb, explore
from policies.space import Hyperparameters, Space, sample
from policies.standings import Standings, standings

HISTORY = 32  # scores of a member that are kept for the rules that look back


class Report(NamedTuple):
    """What a member says at a ready point. A higher score is better; NaN is a failed member."""

    member: int
    step: int
    score: float


class Order(NamedTuple):
    """Continue from the weights that `donor` reported with, under these hyperparameters."""

    member: int
    donor: int
    hyperparameters: Hyperparameters


@dataclass(frozen=True)
class Rules:
    """How a population evolves.

    `least` members must have a score before anybody copies; a member is compared only with those whose
    step is within `age_window` of its own.
    """

    exploit: Exploit = Truncation()
    explore: Explore = Perturb()
    least: int = 2
    age_window: float = math.inf

    def __post_init__(self) -> None:
        if self.least < 2:
            raise ValueError(f"least must be at least 2 members, but got {self.least}.")
        if self.age_window < 0:
            raise ValueError(f"age_window must be at least 0 steps, but got {self.age_window}.")


ALONE = Rules(NoExploit())


class MemberState(NamedTuple):
    """What the population knows of one member; `score` is None until it reports after a copy."""

    hyperparameters: Hyperparameters
    score: float | None = None
    step: int = 0
    decisions: int = 0
    history: tuple[float, ...] = ()  # the last scores of these weights, oldest first


State = tuple[MemberState, ...]


def generator(seed: int, member: int, decision: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, member, decision])))


def start(space: Space, members: int, seed: int) -> State:
    """Draw every member's first hyperparameters from the space."""
    return tuple(MemberState(sample(space, generator(seed, member, 0))) for member in range(members))


def decide(
    rules: Rules, space: Space, state: State, reports: Iterable[Report], seed: int
) -> tuple[State, list[Order]]:
    """Take the reports in and give an order to every reporting member that is to copy another.

    All donors are chosen from one snapshot, and a copy takes the weights that the donor reported with,
    also where the donor itself is told to copy. A clone's old scores are forgotten: until it reports
    again it neither ranks nor donates.
    """
    reports = sorted(reports)
    _check_reports(reports, len(state))
    members = list(state)
    for report in reports:
        members[report.member] = _heard(members[report.member], report)
    told = tuple(members)
    at_step = {step: _standings(rules, told, step) for step in {report.step for report in reports}}
    orders = []
    for report in reports:
        rng = generator(seed, report.member, told[report.member].decisions)
        donor = rules.exploit.donor(report.member, at_step[report.step], rng)
        if donor is not None and donor != report.member:
            own, others = told[report.member].hyperparameters, told[donor].hyperparameters
            orders.append(Order(report.member, donor, explore(rules.explore, space, others, own, rng)))
    for order in orders:
        members[order.member] = told[order.member]._replace(
            hyperparameters=order.hyperparameters, score=None, history=()
        )
    return tuple(members), orders


def to_plain(state: State) -> list[dict[str, Any]]:
    """Return the state as values that JSON holds, for a checkpoint."""
    return [known._asdict() | {"history": list(known.history)} for known in state]


def from_plain(plain: Sequence[dict[str, Any]]) -> State:
    return tuple(MemberState(**known | {"history": tuple(known["history"])}) for known in plain)


def _heard(known: MemberState, report: Report) -> MemberState:
    score = float(report.score)
    history = (*known.history, score)[-HISTORY:]
    return known._replace(score=score, step=report.step, decisions=known.decisions + 1, history=history)


def _standings(rules: Rules, told: State, step: int) -> Standings:
    """Return who can be compared at this age; nobody if they are too few."""
    scores = {
        number: known.score
        for number, known in enumerate(told)
        if known.score is not None and abs(known.step - step) <= rules.age_window
    }
    if len(scores) < rules.least:
        scores = {}
    return standings(scores, {number: told[number].history for number in scores})


def _check_reports(reports: Sequence[Report], members: int) -> None:
    numbers = [report.member for report in reports]
    if len(set(numbers)) != len(numbers) or any(not 0 <= number < members for number in numbers):
        raise ValueError(f"reports must come from different members of {members}, but got {numbers}.")
