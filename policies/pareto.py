"""Choices between a score (higher is better) and costs (lower is better)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def front(scores: ArrayLike, costs: ArrayLike) -> NDArray[np.bool_]:
    """Return which points no other one beats: scores `(points,)`, costs `(points,)` or `(points, costs)`.

    A point is beaten by one that is nowhere worse and somewhere better, so all of several equal points
    stay. A score that is not finite is always beaten.
    """
    score = np.asarray(scores, dtype=np.float64)
    cost = np.asarray(costs, dtype=np.float64).reshape(len(score), -1)
    values = np.column_stack([np.where(np.isfinite(score), -score, np.inf), cost])
    kept = np.isfinite(score)
    for place, value in enumerate(values):
        beaten = (values <= value).all(axis=1) & (values < value).any(axis=1)
        kept[place] &= not beaten.any()
    return kept


def choose(scores: ArrayLike, costs: ArrayLike, budget: float) -> int:
    """Return the point with the best score whose cost is within the budget; of equal ones the cheapest.

    Raises ValueError that names the nearest cost if there is none.
    """
    score, cost = np.asarray(scores, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    able = np.flatnonzero((cost <= budget) & np.isfinite(score))
    if not able.size:
        raise ValueError(f"the budget {budget:g} is below every cost; the nearest is {cost.min():g}.")
    return int(min(able, key=lambda place: (-score[place], cost[place], place)))


def hypervolume(scores: ArrayLike, costs: ArrayLike, worst_score: float, worst_cost: float) -> float:
    """Return the area between the front and its worst corner, for one cost."""
    area, best = 0.0, worst_score
    for cost, score in sorted(zip(np.asarray(costs), np.asarray(scores), strict=True)):
        if score > best and cost < worst_cost:
            area += (score - best) * (worst_cost - cost)
            best = score
    return float(area)
