"""Population based training (Jaderberg et al., 2017) as one pure decision.

Reports go in, orders come out. Nothing here reads a clock, a file or a global generator: the random
numbers of a decision depend on (run seed, member, number of the decision) alone, so neither the order
in which reports arrive nor a restart changes what is decided.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from shoal.policies.exploit import Copy, clone
from shoal.policies.explore import NO_PAST, Interval, Past, explore, with_constants
from shoal.policies.rules import Rules
from shoal.policies.space import Hyperparameters, Space, frozen, sample_space
from shoal.policies.standings import Standings, standings

SCORES_KEPT = 32  # scores for each member; some rules look back


class Report(NamedTuple):
    """What a member says at a ready point. A higher score is better; NaN is a failed member.

    Without a score (None) nothing is decided about the member: it stands as it did at its last score.
    """

    member: int
    step: int
    score: float | None


class Order(NamedTuple):
    """Continue from the weights that `donor` reported with, under these hyperparameters.

    Without `decision`: the weights that `donor` has just reported with. With it: those it had at that decision
    of its own; `donor` may then be `member` (backtracking).
    """

    member: int
    donor: int
    hyperparameters: Hyperparameters
    decision: int | None = None


class Rung(NamedTuple):
    """The score that a member had on a rung of `Cull`, and which of its decisions that was."""

    rung: int
    score: float
    decision: int


class Best(NamedTuple):
    """The best that a member has ever reported, and what it was then."""

    score: float
    decision: int  # which of its decisions that was
    step: int
    hyperparameters: Hyperparameters


class MemberState(NamedTuple):
    """What the population knows of one member; `score` is None until it reports after a copy."""

    hyperparameters: Hyperparameters
    score: float | None = None
    step: int = 0
    decisions: int = 0
    history: tuple[float, ...] = ()  # the last scores of these weights, oldest first
    begun: tuple[int, float] | None = None  # step and score that the running interval began with
    explored: bool = False  # whether the running interval is the first under these hyperparameters
    since: int = 0  # at which of its decisions it last took weights; 0 if it has only had its own
    failures: int = 0  # how often it reported without a finite score
    best: Best | None = None  # kept only where the rules backtrack
    rungs: tuple[Rung, ...] = ()  # the newest score of each rung, as far as members are culled
    past: tuple[Interval, ...] = ()  # the last finished intervals, oldest first, as far as a rule wants them


PopulationState = tuple[MemberState, ...]


def generator(seed: int, member: int, decision: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, member, decision])))


def start(space: Space, members: int, seed: int) -> PopulationState:
    """Draw every member's first hyperparameters from the space."""
    return tuple(MemberState(sample_space(space, generator(seed, member, 0))) for member in range(members))


def decide(
    rules: Rules, space: Space, state: PopulationState, reports: Iterable[Report], seed: int
) -> tuple[PopulationState, list[Order]]:
    """Take the reports in and give an order to every reporting member that is to copy another.

    All donors are chosen from one snapshot, and a copy takes the weights that the donor reported with,
    also where the donor itself is told to copy. A clone's old scores are forgotten: until it reports
    again it neither ranks nor donates.
    """
    reports = sorted(reports, key=lambda report: report.member)
    _check_reports(reports, len(state))
    members = list(state)
    for report in reports:
        members[report.member] = _heard(members[report.member], report, rules)
    told = tuple(members)
    orders: list[Order] = []
    copies = _copies(rules, told, [report for report in reports if report.score is not None], seed)
    best = archived(state) if rules.backtrack else None
    for member, (copy, rng) in copies.items():
        source = _source(told, copy, best)
        past = _past(rules, told, copies, orders, source) if rules.explore.memory else NO_PAST
        taken = _taken(rules, space, source.hyperparameters, told[member].hyperparameters, copy, past, rng)
        orders.append(Order(member, source.donor, taken, source.decision))
        members[member] = told[member]._replace(
            hyperparameters=taken,
            score=None,
            # under known hyperparameters the donor's score is where a curve of these weights begins
            history=() if copy.explore else (source.score,),
            begun=(source.step, source.score),
            explored=copy.explore,
            since=told[member].decisions,
            # the clone's own report is not archived: its weights are gone before a checkpoint could hold them
            best=state[member].best,
        )
    return tuple(members), orders


def archived(state: PopulationState) -> tuple[int, Best] | None:
    """Return the member that has ever reported the best score, and what it was then.

    Its weights of then are what later copies may go back to, so they have to be kept.
    """
    known = [(member, each.best) for member, each in enumerate(state) if each.best is not None]
    return max(known, key=lambda item: (item[1].score, -item[0])) if known else None


def to_plain(state: PopulationState) -> list[dict[str, Any]]:
    """Return the state as values that JSON holds, for a checkpoint."""
    return [
        known._asdict()
        | {
            "best": known.best and tuple(known.best),
            "rungs": [tuple(rung) for rung in known.rungs],
            "past": [tuple(interval) for interval in known.past],
        }
        for known in state
    ]


def from_plain(plain: Sequence[dict[str, Any]]) -> PopulationState:
    """Return the state that `to_plain` gave, also after JSON has made lists of its tuples."""
    return tuple(
        MemberState(
            **known
            | {
                "hyperparameters": frozen(known["hyperparameters"]),
                "history": tuple(known["history"]),
                "begun": known["begun"] and tuple(known["begun"]),
                "best": known["best"] and _with_tuples(Best(*known["best"])),
                "rungs": tuple(Rung(*rung) for rung in known["rungs"]),
                "past": tuple(_with_tuples(Interval(*interval)) for interval in known["past"]),
            }
        )
        for known in plain
    )


def _with_tuples(known: Any) -> Any:
    return known._replace(hyperparameters=frozen(known.hyperparameters))


def _heard(known: MemberState, report: Report, rules: Rules) -> MemberState:
    if report.score is None:
        return known._replace(decisions=known.decisions + 1)
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
        history=(*known.history, score)[-SCORES_KEPT:],
        begun=(report.step, score),
        explored=False,
        failures=known.failures + (not math.isfinite(score)),
        best=_improved(known, score, report.step) if rules.backtrack else None,
        rungs=_climbed(known, score, report.step, rules),
        past=past,
    )


def _improved(known: MemberState, score: float, step: int) -> Best | None:
    if not math.isfinite(score) or (known.best is not None and known.best.score >= score):
        return known.best
    return Best(score, known.decisions + 1, step, known.hyperparameters)


def _climbed(known: MemberState, score: float, step: int, rules: Rules) -> tuple[Rung, ...]:
    """Return the member's rungs with the one that this report brings it to."""
    before = known.begun[0] if known.begun else 0
    rung = rules.cull.rung(before, step) if rules.cull else None
    if rung is None:
        return known.rungs
    others = [each for each in known.rungs if each.rung != rung]
    return (*others, Rung(rung, score, known.decisions + 1))


def _hopeless(rules: Rules, told: PopulationState, member: int) -> bool:
    """Say whether the report that was just taken in has brought the member to a rung where it falls behind."""
    known = told[member]
    if rules.cull is None or not known.rungs or known.rungs[-1].decision != known.decisions:
        return False
    own = known.rungs[-1]
    scores = [each.score for other in told for each in other.rungs if each.rung == own.rung]
    return len(scores) >= rules.least and rules.cull.hopeless(own.score, scores)


def _standings(rules: Rules, told: PopulationState, step: int, decision: int) -> Standings:
    """Return the members that can be compared at this age; none if they are too few.

    A member that has failed for good is left out: it would stand among the worst, and nothing replaces it.
    """
    scores = {
        number: known.score
        for number, known in enumerate(told)
        if known.score is not None and abs(known.step - step) <= rules.age_window
    }
    if len(scores) < rules.least:
        scores = {}
    scores = {number: score for number, score in scores.items() if not _given_up(rules, told[number])}
    histories = {number: told[number].history for number in scores}
    since = {number: told[number].since for number in scores}
    return standings(scores, histories, len(told), decision, since)


def _given_up(rules: Rules, known: MemberState) -> bool:
    """Say whether a member has failed for good: it has no score, and nothing replaces it any more."""
    failed = known.score is not None and not math.isfinite(known.score)
    return failed and known.failures > rules.replacements


def _trains_on(rules: Rules, known: MemberState) -> bool:
    """Say whether a member that copies nothing now trains, with something to learn from it."""
    failed = known.score is not None and not math.isfinite(known.score)
    return not failed and (known.begun is None or known.begun[0] < rules.steps)


def _copies(
    rules: Rules, told: PopulationState, reports: Sequence[Report], seed: int
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


def _copy(rules: Rules, told: PopulationState, member: int, ranked: Standings, rng: Any) -> Copy | None:
    """Ask the exploit rule; a failed or culled member that it leaves alone is replaced all the same."""
    known = told[member]
    if known.failures > rules.replacements:
        return None
    copy = rules.exploit.copy(member, ranked, rng) if known.step >= rules.burn_in else None
    failed = not math.isfinite(ranked.scores.get(member, 0.0))
    if copy is None and (failed or _hopeless(rules, told, member)):
        # only members ranked above it may donate: rungs compare equal ages, so a culled member can itself rank
        # in the best quarter
        better = min(math.ceil(ranked.able / 4), ranked.places.get(member, 0))
        copy = clone(ranked.ranking[int(rng.integers(better))]) if better else None
    return copy


class _Source(NamedTuple):
    """Where a copy comes from."""

    donor: int
    decision: int | None
    step: int
    score: float
    hyperparameters: Hyperparameters  # these are varied or taken over


def _source(told: PopulationState, copy: Copy, best: tuple[int, Best] | None) -> _Source:
    """Return the donor, or the best of earlier decisions if the donor is worse (BG-PBT: Wan et al., 2022).

    What is varied are the hyperparameters that belong to the weights, not those of the donor of now.
    """
    donor = told[copy.donor]
    assert donor.score is not None
    if best is not None and copy.explore and best[1].score > donor.score:
        member, then = best
        return _Source(member, then.decision, then.step, then.score, then.hyperparameters)
    return _Source(copy.donor, None, donor.step, donor.score, told[copy.model].hyperparameters)


def _past(
    rules: Rules, told: PopulationState, copies: Mapping[int, Any], orders: Sequence[Order], source: _Source
) -> Past:
    staying = [
        known.hyperparameters
        for number, known in enumerate(told)
        if number not in copies and _trains_on(rules, known)
    ]
    running = (*staying, *(order.hyperparameters for order in orders))
    intervals = tuple(interval for known in told for interval in known.past)
    return Past(intervals, running, source.step, source.score)


def _taken(
    rules: Rules,
    space: Space,
    model: Hyperparameters,
    own: Hyperparameters,
    copy: Copy,
    past: Past,
    rng: np.random.Generator,
) -> Hyperparameters:
    """Return the hyperparameters that a member goes on with after its copy."""
    if not copy.explore:
        return with_constants(space, model, own)
    return explore(rules.explore, space, model, own, rng, past)


def _check_reports(reports: Sequence[Report], members: int) -> None:
    numbers = [report.member for report in reports]
    if len(set(numbers)) != len(numbers) or any(not 0 <= number < members for number in numbers):
        raise ValueError(f"reports must come from different members of {members}, but got {numbers}.")
