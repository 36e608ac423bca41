"""How the members of a population stand at a decision."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Standings(NamedTuple):
    """The members that can be compared at a decision."""

    ranking: tuple[int, ...]  # best first, NaN last, the lower number first among equals
    places: Mapping[int, int]  # place of each in the ranking, from 0
    scores: Mapping[int, float]
    histories: Mapping[int, tuple[float, ...]]  # the last scores of each, oldest first
    able: int  # so many at the head of the ranking have a finite score and may donate
    members: int  # in the whole population, also those that cannot be compared
    decision: int  # number of this decision for the member that asks, from 1
    since: Mapping[int, int]  # number of the decision at which each last took weights; 0 if it never did

    def rivals(self, member: int, count: int, rng: np.random.Generator) -> list[int]:
        """Draw up to `count` different other members that may donate, best first."""
        own = self.places.get(member, self.able)
        others = self.able - (own < self.able)
        if not others:
            return []
        drawn = rng.choice(others, min(count, others), replace=False)
        return [self.ranking[place + (place >= own)] for place in sorted(drawn.tolist())]


def standings(
    scores: Mapping[int, float],
    histories: Mapping[int, tuple[float, ...]],
    members: int,
    decision: int,
    since: Mapping[int, int] | None = None,
) -> Standings:
    """Rank the members that have a score."""
    ranking = tuple(rank(scores))
    able = int(np.isfinite(np.fromiter(scores.values(), np.float64, len(scores))).sum())
    places = dict(zip(ranking, range(len(ranking)), strict=True))
    return Standings(ranking, places, scores, histories, able, members, decision, since or {})


def rank(scores: Mapping[int, float]) -> list[int]:
    """Return the members best first: what is not finite last, the lower number first among equals."""
    # arrays, since an asynchronous decision ranks everybody for one report
    members = np.fromiter(scores, np.int64, len(scores))
    values = np.fromiter(scores.values(), np.float64, len(scores))
    descending = np.where(np.isfinite(values), -values, np.inf)
    ranking: list[int] = members[np.lexsort((members, descending))].tolist()
    return ranking
