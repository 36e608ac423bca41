"""What a bag's known count says of each of its rows: exactly, by sums over counts and not over labels."""

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector

Integers = NDArray[np.integer]
MOST_NUMBERS = 4_000_000  # numbers of a table of counts that are in memory at once


def count_messages(odds: Vector, bag: Integers, counts: Vector, weight: float) -> Vector:
    """Return the log-odds that its bag gives each row, `(rows,)`, for labels 0 and 1.

    A bag of n rows has the factor exp(-weight (sum of labels - count)^2). `odds` `(rows,)` are the log-odds of
    each row by all else, `bag` `(rows,)` whole numbers, of which -1 is no bag; `counts` `(bags,)` need not be
    whole. Bags of like sizes are counted together, in n steps of n numbers each.
    """
    found = np.zeros(len(odds))
    for rows, there, whole in padded_bags(bag, len(counts)):
        yes, no = -np.logaddexp(0.0, -odds[rows]), -np.logaddexp(0.0, odds[rows])
        # padding has the label 0
        yes, no = np.where(there, yes, -np.inf), np.where(there, no, 0.0)
        messages = one_size(yes, no, counts[whole], weight)
        found[rows[there]] = messages[there]
    return found


def padded_bags(bag: Integers, bags: int) -> list[tuple[Integers, NDArray[np.bool_], Integers]]:
    """Return blocks of bags: the rows of each `(bags, rows)`, which are there, and the bags' numbers."""
    order = np.argsort(bag, kind="stable")
    sizes = np.bincount(bag[bag >= 0], minlength=bags)
    first = (bag < 0).sum() + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    blocks: list[tuple[Integers, NDArray[np.bool_], Integers]] = []
    numbers = np.argsort(sizes, kind="stable")
    numbers = numbers[sizes[numbers] > 0]
    while len(numbers):
        # the largest is last, so all of a block are padded to its last one
        widths = sizes[numbers].astype(np.float64)
        fit = np.arange(1, len(numbers) + 1) * widths * (widths + 1) <= MOST_NUMBERS
        # a block ends, too, where padding would double the work
        fit &= widths <= 2 * widths[0]
        block, numbers = np.split(numbers, [max(int(fit.sum()), 1)])
        places = np.arange(sizes[block].max())
        there = places < sizes[block][:, None]
        blocks.append((order[np.where(there, first[block][:, None] + places, 0)], there, block))
    return blocks


def one_size(yes: Vector, no: Vector, counts: Vector, weight: float) -> Vector:
    """Return the messages of bags of one size, `(bags, rows)`, from the logs of both chances of each row."""
    bags, rows = yes.shape
    after = np.full(
        (rows + 1, bags, rows + 2), -np.inf
    )  # how well the rows from here on bring a count to the end
    after[rows, :, :-1] = -weight * (np.arange(rows + 1) - counts[:, None]) ** 2
    for row in range(rows - 1, 0, -1):
        stays, rises = after[row + 1, :, :-1], after[row + 1, :, 1:]
        after[row, :, :-1] = np.logaddexp(no[:, row, None] + stays, yes[:, row, None] + rises)
    before = np.full((bags, rows + 1), -np.inf)  # chance of each count among the rows before
    before[:, 0] = 0.0
    found = np.empty_like(yes)
    for row in range(rows):
        at_one, at_zero = before + after[row + 1, :, 1:], before + after[row + 1, :, :-1]
        found[:, row] = log_of_sum(at_one) - log_of_sum(at_zero)
        risen = np.concatenate([np.full((bags, 1), -np.inf), before[:, :-1]], axis=1)
        before = np.logaddexp(no[:, row, None] + before, yes[:, row, None] + risen)
    return found


def log_of_sum(values: Vector) -> Vector:
    top = values.max(axis=1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(axis=1)))
