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

from policies.space import Constant, Hyperparameters, Space, explore, sample


class Report(NamedTuple):
    """What a member says at a ready point. A higher score is better; NaN is a failed member."""

    member: int
    step: int
    score: float


class Order(NamedTuple):
    """Continue from the weights of `donor`, with these hyperparameters."""

    member: int
    donor: int
    hyperparameters: Hyperparameters


@dataclass(frozen=True)
class Truncation:
    """A member in the worst `fraction` copies one drawn from the best `fraction` (Jaderberg et al., 2017).

    The tail holds floor(members * fraction) members; the best member is never in it, because
    `fraction` is at most one half.
    """

    fraction: float = 0.25
    resample: float = 0.25
    factors: tuple[float, float] = (0.8, 1.25)

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 0.5:
            raise ValueError(f"fraction must be in (0, 0.5], but got {self.fraction}.")
        if not 0 <= self.resample <= 1:
            raise ValueError(f"resample must be in [0, 1], but got {self.resample}.")
        if not 0 < self.factors[0] < 1 < self.factors[1]:
            raise ValueError(f"factors must be one below and one above 1, but got {self.factors}.")

    def tail(self, members: int) -> int:
        # 1e-9: 0.29 * 100 is 28.999999999999996
        return math.floor(members * self.fraction + 1e-9)

    def donor(
        self, member: int, ranking: Sequence[int], scores: dict[int, float], rng: np.random.Generator
    ) -> int | None:
        """Return whom `member` copies, or None; `ranking` is best first."""
        tail = self.tail(len(ranking))
        if member not in ranking[len(ranking) - tail :]:
            return None
        able = [other for other in ranking[:tail] if math.isfinite(scores[other])]
        return able[int(rng.integers(len(able)))] if able else None


@dataclass(frozen=True)
class NoExploit:
    """Never copies: the members train on as they began. The control to hold PBT against."""

    resample: float = 0.0
    factors: tuple[float, float] = (0.8, 1.25)

    def donor(
        self, member: int, ranking: Sequence[int], scores: dict[int, float], rng: np.random.Generator
    ) -> int | None:
        return None


Exploit = Truncation | NoExploit
EXPLOITS: dict[str, type] = {"truncation": Truncation, "none": NoExploit}


class MemberState(NamedTuple):
    """What the population knows of one member; `score` is None until it reports after a copy."""

    hyperparameters: Hyperparameters
    score: float | None = None
    step: int = 0
    decisions: int = 0


State = tuple[MemberState, ...]


def generator(seed: int, member: int, decision: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, member, decision])))


def start(space: Space, members: int, seed: int) -> State:
    """Draw every member's first hyperparameters from the space."""
    return tuple(MemberState(sample(space, generator(seed, member, 0))) for member in range(members))


def decide(
    exploit: Exploit, space: Space, state: State, reports: Iterable[Report], seed: int
) -> tuple[State, list[Order]]:
    """Take the reports in and give an order to every reporting member that is to copy another.

    All donors are chosen from one snapshot, a member that copies never donates in the same decision,
    and a clone's old score is forgotten: until it reports again it neither ranks nor donates.
    """
    reports = sorted(reports)
    _check_reports(reports, len(state))
    members = list(state)
    for report in reports:
        known = members[report.member]
        members[report.member] = known._replace(
            score=float(report.score), step=report.step, decisions=known.decisions + 1
        )
    scores = {number: known.score for number, known in enumerate(members) if known.score is not None}
    order_of = rank(scores)
    orders = []
    for report in reports:
        rng = generator(seed, report.member, members[report.member].decisions)
        donor = exploit.donor(report.member, order_of, scores, rng)
        if donor is not None:
            orders.append(_copy(exploit, space, members, report.member, donor, rng))
    for order in orders:
        members[order.member] = members[order.member]._replace(
            hyperparameters=order.hyperparameters, score=None
        )
    assert not {order.member for order in orders} & {order.donor for order in orders}
    return tuple(members), orders


def rank(scores: dict[int, float]) -> list[int]:
    """Return the members best first: NaN last, the lower number first among equals."""
    return sorted(scores, key=lambda member: (_descending(scores[member]), member))


def to_plain(state: State) -> list[dict[str, Any]]:
    """Return the state as values that JSON holds, for a checkpoint."""
    return [known._asdict() for known in state]


def from_plain(plain: Sequence[dict[str, Any]]) -> State:
    return tuple(MemberState(**known) for known in plain)


def _copy(
    exploit: Exploit,
    space: Space,
    members: Sequence[MemberState],
    member: int,
    donor: int,
    rng: np.random.Generator,
) -> Order:
    varied = explore(space, members[donor].hyperparameters, rng, exploit.resample, exploit.factors)
    for name, domain in space.items():
        if isinstance(domain, Constant):
            varied[name] = members[member].hyperparameters[name]
    return Order(member, donor, varied)


def _descending(score: float) -> float:
    return math.inf if math.isnan(score) else -score


def _check_reports(reports: Sequence[Report], members: int) -> None:
    numbers = [report.member for report in reports]
    if len(set(numbers)) != len(numbers) or any(not 0 <= number < members for number in numbers):
        raise ValueError(f"reports must come from different members of {members}, but got {numbers}.")
