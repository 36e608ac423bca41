"""Sub-populations that evolve at different frequencies: a remedy for the greed of truncation."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shoal.policies.exploit import Copy, Traits, clone
from shoal.policies.standings import Standings


@dataclass(frozen=True)
class MultipleFrequency:
    """Fast sub-populations exploit at once, slow ones after many intervals (MF-PBT, 2025, arXiv 2506.03225).

    The members are cut into as many neighbouring parts as there are `frequencies`; a part evolves at
    every so many decisions. Of an evolving part, ranked best first, two quarters are kept; a third quarter
    takes weights of better members elsewhere, not more than one copy of each; the worst quarter clones the
    best. Hyperparameters come along only from slower parts: the short-sighted ones of faster parts would
    spoil a slow part.
    """

    traits: ClassVar[Traits] = Traits()

    frequencies: tuple[int, ...] = (1, 10, 25, 50)

    def __post_init__(self) -> None:
        if not self.frequencies or min(self.frequencies) < 1:
            raise ValueError(f"frequencies must be at least 1 decision each, but got {self.frequencies}.")

    def copy(self, member: int, standings: Standings, rng: np.random.Generator) -> Copy | None:
        own = self.part(member, standings.members)
        if member not in standings.places or standings.decision % self.frequencies[own]:
            return None
        ranking = [other for other in standings.ranking if self.part(other, standings.members) == own]
        first, end = (-(-edge * standings.members // len(self.frequencies)) for edge in (own, own + 1))
        # a part of four that has lost one for good goes on: a quarter is then one of three
        share, place = min((end - first) // 4, len(ranking) // 3), ranking.index(member)
        worst = place - (len(ranking) - share)
        if worst >= 0:
            # the k-th worst copies the k-th best
            donor = ranking[share - 1 - worst]
            return clone(donor) if standings.places[donor] < standings.able else None
        if worst >= -share:
            return self.migrant(member, ranking[-2 * share : len(ranking) - share], ranking[0], standings)
        return None

    def migrant(self, member: int, quarter: list[int], best: int, standings: Standings) -> Copy | None:
        """Return what this one of the third quarter takes from another part, if a better one is left there."""
        parts = [self.part(each, standings.members) for each in standings.ranking[: standings.able]]
        own = self.part(member, standings.members)
        others = [each for each, part in zip(standings.ranking, parts, strict=False) if part != own]
        taken = 0  # the quarter chooses in its order, each from what is left
        for each in quarter[: quarter.index(member)]:
            taken += taken < len(others) and standings.places[others[taken]] < standings.places[each]
        if taken == len(others) or standings.places[others[taken]] > standings.places[member]:
            return None
        donor = others[taken]
        theirs, ours = self.frequencies[self.part(donor, standings.members)], self.frequencies[own]
        model = donor if theirs > ours else best if theirs < ours else member
        return Copy(donor, model, explore=False)

    def part(self, member: int, members: int) -> int:
        return member * len(self.frequencies) // members
