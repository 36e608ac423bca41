"""How a batch is cut when groups can run out: other groups give the rows that one no longer has."""

from collections.abc import Sequence

from shoal.policies.mixing import cut_batch


def share_out(
    proportions: Sequence[float], batch: int, debt: Sequence[float], left: Sequence[int]
) -> tuple[list[int], list[float]] | None:
    """Return counts and debt as `apportion` does, of groups that have only so many rows left.

    What a group lacks goes to the others in proportion, and from the batch in which it runs out on it has
    no share. The debt begins anew then: nobody pays back what a group gave in another's place. None where
    the groups that have a share do not have a batch between them.
    """
    shares = [share if rows > 0 else 0.0 for share, rows in zip(proportions, left, strict=True)]
    if sum(rows for share, rows in zip(shares, left, strict=True) if share > 0) < batch:
        return None
    shares = summing_to_one(shares)
    due = [share * batch + owed for share, owed in zip(shares, debt, strict=True)]
    counts = cut_batch(shares, due, batch)
    if all(count < rows or not share for count, rows, share in zip(counts, left, shares, strict=True)):
        return counts, [rows - count for rows, count in zip(due, counts, strict=True)]
    counts = [min(count, rows) for count, rows in zip(counts, left, strict=True)]
    while (missing := batch - sum(counts)) > 0:
        room = [rows - count for rows, count in zip(left, counts, strict=True)]
        able = summing_to_one([share if rows else 0.0 for share, rows in zip(shares, room, strict=True)])
        more = cut_batch(able, [share * missing for share in able], missing)
        counts = [count + min(extra, rows) for count, extra, rows in zip(counts, more, room, strict=True)]
    return counts, [0.0] * len(counts)


def summing_to_one(shares: Sequence[float]) -> list[float]:
    total = sum(shares)
    return [share / total for share in shares]
