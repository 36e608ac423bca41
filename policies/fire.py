"""Parents that are judged by how fast their weights improve, not by how good they are: a remedy for greed."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, combinations
from typing import ClassVar

import numpy as np

from shoal.policies.exploit import Copy, Traits, clone
from shoal.policies.standings import Standings

ScoreCurve = tuple[float, ...]


@dataclass(frozen=True)
class Fire:
    """Two sub-populations and evaluators, after FIRE PBT (Dalibard and Jaderberg, 2021).

    A third of the members are parents, a third are their evaluators, one each, and the rest are children,
    who evolve greedily by score. An evaluator takes its parent's weights, trains them for `patience`
    decisions under the hyperparameters of the best child, and so shows what the weights are worth once
    somebody turns greedy. Then the worst quarter of the parents, ranked by the rate of improvement that
    their evaluators saw, clone the best quarter, and all evaluators begin anew. A parent whose evaluator has
    not trained its weights for so long, as at the first decision, is neither cloned nor replaced: its score
    says nothing here. An evaluator that has come among the best of the children is cloned by the worst of
    them: what the parents gain reaches the children.
    """

    traits: ClassVar[Traits] = Traits(by_score=False)

    patience: int = 2
    smoothing: float = 0.5  # weight of the earlier scores in the moving average of an evaluator's curve

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1 decision, but got {self.patience}.")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing must be in [0, 1), but got {self.smoothing}.")

    def copy(self, member: int, standings: Standings, rng: np.random.Generator) -> Copy | None:
        third = standings.members // 3
        children = standings.members - 2 * third
        if member not in standings.places or not standings.able:
            return None
        if member < children:
            return self.greedy(member, range(children), range(children + third, standings.members), standings)
        if (standings.decision - 1) % self.patience:
            return None
        parents = range(children, children + third)
        if member in parents:
            return self.patient(member, parents, standings)
        return self.restart(member - third, parents, range(children), standings)

    def greedy(self, child: int, children: range, evaluators: range, standings: Standings) -> Copy | None:
        """Let the k-th worst child of the worst quarter clone the k-th best, evaluators among them."""
        able = standings.ranking[: standings.able]
        worst = _from_last(child, [each for each in standings.ranking if each in children])
        best = [each for each in able if each in children or each in evaluators]
        if worst >= len(children) // 4 or worst >= len(best) or best[worst] == child:
            return None
        return clone(best[worst])

    def patient(self, parent: int, parents: range, standings: Standings) -> Copy | None:
        ranking = self.by_rate(parents, standings)
        if parent not in ranking:
            return None
        worst = _from_last(parent, ranking)
        if worst >= len(ranking) // 4 or not math.isfinite(standings.scores[ranking[worst]]):
            return None
        return clone(ranking[worst])

    def restart(self, parent: int, parents: range, children: range, standings: Standings) -> Copy | None:
        """Return what the parent's evaluator begins with: the weights that the parent has from now on."""
        able = standings.ranking[: standings.able]
        replaced = self.patient(parent, parents, standings)
        donor = replaced.donor if replaced else parent
        model = next((each for each in able if each in children), donor)
        return Copy(donor, model, explore=False) if donor in able else None

    def by_rate(self, parents: range, standings: Standings) -> list[int]:
        """Rank the evaluated parents by how many others their evaluators' curves outpace, then by score."""
        curves = {
            parent: curve
            for parent in standings.ranking
            if parent in parents and (curve := self.curve(parent, parent + len(parents), standings))
        }
        won = dict(zip(curves, wins(tuple(curves.values())), strict=True))
        return sorted(curves, key=lambda parent: -won[parent])  # stable: equals stay in the order of scores

    def curve(self, parent: int, evaluator: int, standings: Standings) -> ScoreCurve:
        """Return what the evaluator saw of the weights that the parent has, or nothing."""
        began = standings.decision - self.patience
        since = standings.since
        if since.get(evaluator, began) != began or since.get(parent, began) > began:
            return ()
        history = standings.histories.get(evaluator, ())[-self.patience - 1 :]
        whole = len(history) == self.patience + 1 and all(map(math.isfinite, history))
        return smoothed(history, self.smoothing) if whole else ()


@lru_cache(maxsize=8)  # all parents and evaluators of a decision ask the same
def wins(curves: tuple[ScoreCurve, ...]) -> tuple[float, ...]:
    """Return how many others each curve outpaces; an undecided pair counts half for both, no curve nothing."""
    climbs = {place: tuple(accumulate(curve, max)) for place, curve in enumerate(curves) if curve}
    won = [0.0] * len(curves)
    for first, second in combinations(climbs, 2):
        quicker = outpaces(climbs[first], climbs[second])
        won[first] += 0.5 if quicker is None else float(quicker)
        won[second] += 0.5 if quicker is None else float(not quicker)
    return tuple(won)


def smoothed(scores: Sequence[float], weight: float) -> ScoreCurve:
    """Return the exponential moving average with its bias corrected, so that the first score stays as it is."""
    total = norm = 0.0
    found = []
    for score in scores:
        total, norm = weight * total + (1 - weight) * score, weight * norm + (1 - weight)
        found.append(total / norm)
    return tuple(found)


def outpaces(first: ScoreCurve, second: ScoreCurve) -> bool | None:
    """Say whether the first curve crosses the scores that both pass through in less time than the second.

    None where they share no range of scores, or take equally long: rates at different scores tell nothing,
    since whoever is further behind is quicker. The curves must not fall: they are the best reached so far.
    """
    low, high = max(first[0], second[0]), min(first[-1], second[-1])
    if low >= high:
        return None
    times = [reached(climb, high) - reached(climb, low) for climb in (first, second)]
    return None if times[0] == times[1] else times[0] < times[1]


def reached(climb: ScoreCurve, level: float) -> float:
    """Return when a curve first has this score, in intervals, between its ends."""
    after = bisect_left(climb, level)
    if after == 0:
        return 0.0
    before = climb[after - 1]
    return after - 1 + (level - before) / (climb[after] - before)


def _from_last(member: int, ranking: Sequence[int]) -> int:
    return len(ranking) - 1 - ranking.index(member)
