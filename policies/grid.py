"""First hyperparameters on a grid: every combination of values is one member's start."""

import itertools
import math
from typing import Any

from shoal.policies.space import (
    Constant,
    Domain,
    Float,
    Hyperparameters,
    Int,
    Space,
    domains_of,
    nested,
)


def grid_points(space: Space, members: int) -> list[Hyperparameters]:
    """Return the points of a grid of so many members, the last domain's values next to one another.

    A domain of values gives all of them. The numbers share what is left: each has equally many levels, evenly
    spaced between its bounds, or in the logarithm where `log` says so; one level lies in the middle. Raises
    ValueError where no grid has exactly so many points.
    """
    domains = domains_of(space)
    values = {path: fixed_values(domain) for path, domain in domains.items()}
    numbers = [path for path, found in values.items() if not found]
    fixed = math.prod(len(found) for found in values.values() if found)
    levels = _levels(members, fixed, len(numbers))
    values |= {path: even_values(domains[path], levels) for path in numbers}
    if short := [".".join(path) for path in numbers if len(values[path]) < levels]:
        raise ValueError(
            f"{short[0]} has no {levels} different values, which a grid of {members} members needs"
        )
    points = itertools.product(*values.values())
    return [nested(dict(zip(values, point, strict=True))) for point in points]


def fixed_values(domain: Domain) -> tuple[Any, ...]:
    """Return the values of a domain that has a list of them, else nothing."""
    if isinstance(domain, Constant):
        return (domain.value,)
    return () if isinstance(domain, Float | Int) else tuple(domain.values)


def even_values(domain: Any, levels: int) -> tuple[Any, ...]:
    """Return so many evenly spaced numbers of a domain, with its bounds; of whole numbers each once."""
    low, high = (math.log(end) if domain.log else end for end in (domain.low, domain.high))
    shares = [place / (levels - 1) for place in range(levels)] if levels > 1 else [0.5]
    found = [low + share * (high - low) for share in shares]
    found = [min(max(math.exp(each) if domain.log else each, domain.low), domain.high) for each in found]
    return tuple(dict.fromkeys(map(round, found))) if isinstance(domain, Int) else tuple(map(float, found))


def _levels(members: int, fixed: int, numbers: int) -> int:
    """Return how many levels each number has; raises ValueError that names the nearest sizes of a grid."""
    levels = round((members / fixed) ** (1 / numbers)) if numbers else 1
    around = [fixed * level**numbers for level in range(max(levels - 1, 1), levels + 2)]
    if members in around:
        return around.index(members) + max(levels - 1, 1)
    sizes = sorted(set(around))
    near = [*[size for size in sizes if size < members][-1:], *[size for size in sizes if size > members][:1]]
    raise ValueError(f"no grid over these domains has {members} points; use {' or '.join(map(str, near))}")
