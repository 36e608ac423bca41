"""How a batch is cut when groups can run out: who gives the rows that a group no longer has."""

from collections.abc import Sequence

from policies.mixing import cut


def share_out(
    proportions: Sequence[float], batch: int, debt: Sequence[float], left: Sequence[int]
) -> tuple[list[int], list[float]] | None:
    """Return counts and debt as `apportion` does, of groups that have only so many rows left.

    What a group lacks goes to the others in proportion, and from the batch in which it runs out on it has
    no share. The debt begins anew then: nobody pays back what a group gave in another's place. None where
    the groups that have a share do not have a batch between them.
    """
    alive = [share if rows > 0 else 0.0 for share, rows in zip(proportions, left, strict=True)]
    total = sum(alive)
    if sum(rows for share, rows in zip(alive, left, strict=True) if share > 0) < batch:
        return None
    shares = [share / total * batch for share in alive]
    due = [share + owed for share, owed in zip(shares, debt, strict=True)]
    counts = cut(due, shares, batch)
    if all(count < rows or not share for count, rows, share in zip(counts, left, alive, strict=True)):
        return counts, [share - count for share, count in zip(due, counts, strict=True)]
    counts = [min(count, rows) for count, rows in zip(counts, left, strict=True)]
    while (missing := batch - sum(counts)) > 0:
        able = [share if rows > count else 0.0 for share, rows, count in zip(alive, left, counts, strict=True)]
        parts = [share / sum(able) * missing for share in able]
        more = cut(parts, parts, missing)
        counts = [min(count + extra, rows) for count, extra, rows in zip(counts, more, left, strict=True)]
    return counts, [0.0] * len(counts)
