"""A population in parts: members copy only within their own, as where parts train networks of other sizes."""

from collections.abc import Iterable

import numpy as np

from shoal.policies.population import Best, Order, PopulationState, Report, archived, decide
from shoal.policies.rules import Rules
from shoal.policies.space import Space


def part_of_member(member: int, parts: int) -> int:
    """Return a member's part: they are dealt out in turn."""
    return member % parts


def decide_within(
    rules: Rules, space: Space, state: PopulationState, reports: Iterable[Report], seed: int, parts: int = 1
) -> tuple[PopulationState, list[Order]]:
    """Decide for each part as for a population of its own; with one part this is `decide`."""
    if parts == 1:
        return decide(rules, space, state, reports, seed)
    heard, members, orders = list(reports), list(state), []
    for part in range(parts):
        numbers = range(part, len(state), parts)
        own = tuple(state[number] for number in numbers)
        said = [
            report._replace(member=report.member // parts)
            for report in heard
            if part_of_member(report.member, parts) == part
        ]
        # a seed for each part, or the same draws would be made in all of them
        rng = np.random.default_rng([seed, part])
        decided, told = decide(rules, space, own, said, int(rng.integers(2**32)))
        for number, known in zip(numbers, decided, strict=True):
            members[number] = known
        orders += [order._replace(member=numbers[order.member], donor=numbers[order.donor]) for order in told]
    return tuple(members), orders


def archived_within(state: PopulationState, parts: int = 1) -> list[tuple[int, Best]]:
    """Return of each part the member that has ever reported the best score there, and what it was then."""
    found = []
    for part in range(parts):
        best = archived(state[part::parts])
        found += [(part + parts * best[0], best[1])] if best else []
    return found
