"""What all selection policies are: columns of a whole pool in; copies, margins and reasons out.

Rows are put in the order of their ids before a policy sees them, and every draw belongs to a row's id. So a
decision depends neither on blocks, workers and files nor on the order in which rows arrive.
"""

from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.sampling.interface import Columns, Ids

NOT_FINITE = "a score that is not finite"
Budget = Literal["needed", "optional", "none"]  # whether a policy is told how many rows to choose


class Candidates(NamedTuple):
    """The rows to choose from, in ascending order of their ids, and what is known of the target."""

    ids: Ids  # (rows,)
    columns: Columns  # name -> (rows,) or (rows, width)
    group: NDArray[np.integer]  # (rows,) number of the row's group
    targets: Columns = MappingProxyType({})  # name -> (targets,) or (targets, width)
    budget: int | None = None  # rows to choose
    seed: int = 0

    @property
    def goal(self) -> int:
        """The budget of a policy that needs one."""
        assert self.budget is not None
        return self.budget


class Selected(NamedTuple):
    """What was decided about each row, and why."""

    copies: NDArray[np.int32]  # (rows,) 0 leaves a row out
    margin: Vector  # (rows,) how far a row lies above the cut, in the score's unit; NaN where nothing was cut
    reason: NDArray[np.int16]  # (rows,) place in `reasons`
    reasons: tuple[str, ...]
    facts: dict[str, float]  # findings such as the cut

    @property
    def rows(self) -> int:
        """Number of chosen rows, each copy counted."""
        return int(self.copies.sum(dtype=np.int64))

    def why(self, place: int) -> str:
        return self.reasons[self.reason[place]]


class Selector(Protocol):
    """A selection policy's settings."""

    @property
    def needs(self) -> frozenset[str]:
        """Columns of the pool; a row where one of them is not finite is left out beforehand."""

    @property
    def aims(self) -> frozenset[str]:
        """Columns of the target, if the policy compares with one."""

    @property
    def budget(self) -> Budget: ...

    def select(self, pool: Candidates) -> Selected:
        """Decide about all rows at once; every needed value is finite, and ids rise."""


def select_rows(selector: Selector, pool: Candidates) -> Selected:
    """Decide about the rows of a pool that stand in any order; results are in that order.

    Where ids rise and all scores are finite, nothing is copied, which is what large pools are for. Raises
    ValueError where a column is missing, two rows have one id, or the budget does not fit.
    """
    check_pool(selector, pool)
    finite = finite_rows(pool.columns, selector.needs, len(pool.ids))
    if pool.budget is not None and pool.budget > (count := int(finite.sum())):
        raise ValueError(
            f"the budget must be at most the {count} rows that can be chosen, but is {pool.budget}."
        )
    if (pool.ids[1:] > pool.ids[:-1]).all():
        if finite.all():
            found = selector.select(
                pool._replace(columns={name: pool.columns[name] for name in selector.needs})
            )
            return found._replace(reasons=(*found.reasons, NOT_FINITE))
        usable = np.flatnonzero(finite)
    else:
        usable = order_of(pool.ids)
        usable = usable[finite[usable]]
    some = pool._replace(
        ids=pool.ids[usable],
        columns={name: pool.columns[name][usable] for name in selector.needs},
        group=pool.group[usable],
    )
    return _spread(selector.select(some), usable, len(pool.ids))


def order_of(ids: Ids) -> NDArray[np.int64]:
    """Return the places of rows in the order of their ids; raises ValueError if two have the same."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    if len(twice := ordered[1:][ordered[1:] == ordered[:-1]]):
        raise ValueError(f"each row must have an id of its own, but two have {twice[0]}.")
    return np.asarray(order)


def check_pool(selector: Selector, pool: Candidates) -> None:
    """Raise ValueError for what a policy lacks."""
    for kind, wanted, given in (
        ("pool", selector.needs, pool.columns),
        ("target", selector.aims, pool.targets),
    ):
        if missing := sorted(wanted - set(given)):
            raise ValueError(f"the {kind} must have the column {missing[0]}, but has {sorted(given)}.")
    for name in selector.aims:
        if not len(pool.targets[name]) or not np.isfinite(pool.targets[name]).all():
            raise ValueError(f"the target's column {name} must have finite values in at least one row.")
    if selector.budget == "needed" and not pool.budget:
        raise ValueError(f"{type(selector).__name__} needs a budget of at least 1 row, but got {pool.budget}.")
    if selector.budget == "none" and pool.budget is not None:
        raise ValueError(f"{type(selector).__name__} decides itself how many rows it keeps: give it no budget.")


def finite_rows(columns: Columns, names: frozenset[str], rows: int) -> NDArray[np.bool_]:
    """Say of each row whether all of these columns are finite there."""
    found = np.ones(rows, bool)
    for name in names:
        finite = np.isfinite(columns[name])
        found &= finite if finite.ndim == 1 else finite.reshape(rows, -1).all(axis=1)
    return found


def _spread(found: Selected, places: NDArray[np.int64], rows: int) -> Selected:
    """Return decisions about some rows as decisions about all; the others have a score that is not finite."""
    copies, margin = np.zeros(rows, np.int32), np.full(rows, np.nan)
    reason = np.full(rows, len(found.reasons), np.int16)
    copies[places], margin[places], reason[places] = found.copies, found.margin, found.reason
    return found._replace(copies=copies, margin=margin, reason=reason, reasons=(*found.reasons, NOT_FINITE))


def halves(chosen: NDArray[np.bool_], margin: Vector, reasons: tuple[str, str], **facts: Any) -> Selected:
    """Return a decision with one reason for all rows that are left out, and one for all that are chosen."""
    return Selected(chosen.astype(np.int32), margin, chosen.astype(np.int16), reasons, facts)
