"""Population based training (Jaderberg et al., 2017) as one pure decision.

Reports go in, orders come out. Nothing here reads a clock, a file or a global generator: the random
numbers of a decision depend on (run seed, member, number of the decision) alone, so neither the order
in which reports arrive nor a restart changes what is decided.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from policies.exploit import Copy, clone
from policies.explore import NOTHING, Interval, Past, explore, with_constants
from policies.rules import Rules
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


class Rung(NamedTuple):
    """The score that a member had on a rung of `Cull`, and which of its decisions that was."""

    rung: int
    score: float
    decision: int


class MemberState(NamedTuple):
    """What the population knows of one member; `score` is None until it reports after a copy."""

    hyperparameters: Hyperparameters
    score: float | None = None
    step: int = 0
    decisions: int = 0
    history: tuple[float, ...] = ()  # the last scores of these weights, oldest first
    begun: tuple[int, float] | None = None  # step and score that the running interval began with
    explored: bool = False  # whether the running interval is the first under these hyperparameters
    failures: int = 0  # how often it reported without a finite score
    rungs: tuple[Rung, ...] = ()  # the newest score of each rung, as far as members are culled
    past: tuple[Interval, ...] = ()  # the last finished intervals, oldest first, as far as a rule wants them


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
        members[report.member] = _heard(members[report.member], report, rules)
    told = tuple(members)
    orders: list[Order] = []
    copies = _copies(rules, told, reports, seed)
    for member, (copy, rng) in copies.items():
        past = NOTHING
        if rules.explore.memory:
            staying = [known.hyperparameters for number, known in enumerate(told) if number not in copies]
            running = (*staying, *(order.hyperparameters for order in orders))
            intervals = tuple(interval for known in told for interval in known.past)
            past = Past(intervals, running, told[copy.donor].step, told[copy.donor].history[-1])
        orders.append(Order(member, copy.donor, _taken(rules, space, told, member, copy, past, rng)))
    for order in orders:
        explored = copies[order.member][0].explore
        members[order.member] = told[order.member]._replace(
            hyperparameters=order.hyperparameters,
            score=None,
            # under known hyperparameters the donor's score is where a curve of these weights begins
            history=() if explored else told[order.donor].history[-1:],
            begun=told[order.donor].begun,
            explored=explored,
        )
    return tuple(members), orders


def to_plain(state: State) -> list[dict[str, Any]]:
    """Return the state as values that JSON holds, for a checkpoint."""
    return [
        known._asdict()
        | {"past": [tuple(interval) for interval in known.past], "rungs": [tuple(rung) for rung in known.rungs]}
        for known in state
    ]


def from_plain(plain: Sequence[dict[str, Any]]) -> State:
    return tuple(
        MemberState(
            **known
            | {
                "history": tuple(known["history"]),
                "begun": known["begun"] and tuple(known["begun"]),
                "rungs": tuple(Rung(*rung) for rung in known["rungs"]),
                "past": tuple(Interval(*interval) for interval in known["past"]),
            }
        )
        for known in plain
    )


def _heard(known: MemberState, report: Report, rules: Rules) -> MemberState:
    score = float(report.score)
    past, memory = known.past, rules.explore.memory
    if memory and known.begun is not None and report.step > known.begun[0]:
        step, before = known.begun
        gain = (score - before) / (report.step - step)
        past = (*past, Interval(step, before, gain, known.hyperparameters, known.explored))[-memory:]
    return known._replace(
        score=score,
        step=report.step,
        decisions=known.decisions + 1,
        history=(*known.history, score)[-HISTORY:],
        begun=(report.step, score),
        explored=False,
        failures=known.failures + (not math.isfinite(score)),
        rungs=_climbed(known, report, rules),
        past=past,
    )


def _climbed(known: MemberState, report: Report, rules: Rules) -> tuple[Rung, ...]:
    """Return the member's rungs with the one that this report brings it to."""
    before = known.begun[0] if known.begun else 0
    rung = rules.cull.rung(before, report.step) if rules.cull else None
    if rung is None:
        return known.rungs
    others = [each for each in known.rungs if each.rung != rung]
    return (*others, Rung(rung, float(report.score), known.decisions + 1))


def _hopeless(rules: Rules, told: State, member: int) -> bool:
    """Say whether the report that was just taken in has brought the member to a rung where it falls behind."""
    known = told[member]
    if rules.cull is None or not known.rungs or known.rungs[-1].decision != known.decisions:
        return False
    own = known.rungs[-1]
    scores = [each.score for other in told for each in other.rungs if each.rung == own.rung]
    return len(scores) >= rules.least and rules.cull.hopeless(own.score, scores)


def _standings(rules: Rules, told: State, step: int, decision: int) -> Standings:
    """Return who can be compared at this age; nobody if they are too few."""
    scores = {
        number: known.score
        for number, known in enumerate(told)
        if known.score is not None and abs(known.step - step) <= rules.age_window
    }
    if len(scores) < rules.least:
        scores = {}
    histories = {number: told[number].history for number in scores}
    return standings(scores, histories, len(told), decision)


def _copies(
    rules: Rules, told: State, reports: Sequence[Report], seed: int
) -> dict[int, tuple[Copy, np.random.Generator]]:
    """Return what each member that is to copy takes, and the generator of its decision."""
    ranked: dict[tuple[int, int], Standings] = {}
    copies = {}
    for report in reports:
        known = told[report.member]
        age = report.step, known.decisions
        if age not in ranked:
            ranked[age] = _standings(rules, told, *age)
        rng = generator(seed, report.member, known.decisions)
        copy = _copy(rules, told, report.member, ranked[age], rng)
        if copy is not None:
            copies[report.member] = copy, rng
    return copies


def _copy(rules: Rules, told: State, member: int, ranked: Standings, rng: Any) -> Copy | None:
    """Ask the exploit rule; a failed or culled member that it leaves alone is replaced all the same."""
    known = told[member]
    if known.failures > rules.replacements:
        return None
    copy = rules.exploit.copy(member, ranked, rng) if known.step >= rules.burn_in else None
    failed = not math.isfinite(ranked.scores.get(member, 0.0))
    if copy is None and (failed or _hopeless(rules, told, member)):
        # a culled member may be better than some of the quarter, who are of another age
        better = min(math.ceil(ranked.able / 4), ranked.places.get(member, 0))
        copy = clone(ranked.ranking[int(rng.integers(better))]) if better else None
    return copy


def _taken(
    rules: Rules, space: Space, told: State, member: int, copy: Copy, past: Past, rng: np.random.Generator
) -> Hyperparameters:
    """Return the hyperparameters that a member goes on with after its copy."""
    own, model = told[member].hyperparameters, told[copy.model].hyperparameters
    if not copy.explore:
        return with_constants(space, model, own)
    return explore(rules.explore, space, model, own, rng, past)


def _check_reports(reports: Sequence[Report], members: int) -> None:
    numbers = [report.member for report in reports]
    if len(set(numbers)) != len(numbers) or any(not 0 <= number < members for number in numbers):
        raise ValueError(f"reports must come from different members of {members}, but got {numbers}.")
