"""What tells of a record that the target has it too: an example as a whole, what is asked, or answered."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.sampling.chance import mixed_bits
from shoal.search.selection.interface import is_instruction

PRIME = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a power of it is lost
MOST_TEXTS = np.int64(1 << 20)  # texts of a row have smaller numbers
Hashes = NDArray[np.uint64]


class Signs(NamedTuple):
    """What some rows have of one kind; all are `(signs,)`."""

    row: NDArray[np.int64]
    key: Hashes
    beside: Hashes  # hashes of the things beside these, such as the answer to a prompt


def telling(signs: Sequence[Signs]) -> Hashes:
    """Return the keys that stand beside one thing alone: what is asked or answered often is no sign."""
    pairs = np.unique(np.stack([np.concatenate([each[at] for each in signs]) for at in (1, 2)], axis=1), axis=0)
    keys, counts = np.unique(pairs[:, 0], return_counts=True)
    found: Hashes = keys[counts == 1]
    return found


def signs_of(rows: NDArray[Any], texts: Sequence[str], least: int) -> dict[str, Signs]:
    """Return the signs of records by their kind; `texts` are columns with one text each.

    An answer of fewer than `least` tokens, such as a label, is no sign.
    """
    if is_instruction(rows):
        numbers = np.where(rows["segment"] > 0, 2 * rows["segment"].astype(np.int64) + (rows["mask"] > 0), 0)
        return of_examples(*text_hashes(rows["tokens"], numbers), least)
    if "chosen_mask" in (rows.dtype.names or ()):
        return of_pairs(rows, least)
    every = np.arange(len(rows))
    whole = hashes_of_bytes(rows)
    found = {"whole": Signs(every, whole, whole)}
    for name in texts:
        row, _, key, _ = text_hashes(rows[name], (rows[name] >= 0).astype(np.int64))
        found[name] = Signs(row, key, whole[row])
    return found


def of_examples(
    row: NDArray[np.int64], number: NDArray[np.int64], key: Hashes, length: NDArray[np.int64], least: int
) -> dict[str, Signs]:
    """Return the signs of examples, whose prompt has an even number and whose answer the next one."""
    examples, place = np.unique(row * MOST_TEXTS + number // 2, return_inverse=True)
    sides = np.zeros((2, len(examples)), np.uint64)
    sides[number % 2, place] = key
    lengths = np.zeros(len(examples), np.int64)
    lengths[place[number % 2 == 1]] = length[number % 2 == 1]
    of = examples // MOST_TEXTS
    asked, answered = sides
    whole = mixed_bits(asked * PRIME + answered)
    there, told = asked != 0, lengths >= least
    return {
        "whole": Signs(of, whole, whole),
        "asked": Signs(of[there], asked[there], answered[there]),
        "answered": Signs(of[told], answered[told], asked[told]),
    }


def of_pairs(rows: NDArray[Any], least: int) -> dict[str, Signs]:
    """Return the signs of pairs of answers: the prompt, and either answer."""
    there = np.maximum.accumulate(rows["chosen_mask"][:, ::-1] > 0, axis=1)[:, ::-1]
    first = of_examples(*text_hashes(rows["chosen"], np.where(there, 2 + (rows["chosen_mask"] > 0), 0)), least)
    _, _, worse, _ = text_hashes(rows["rejected"], np.ones(rows["rejected"].shape, np.int64))
    row, _, key, length = text_hashes(rows["rejected"], (rows["rejected_mask"] > 0).astype(np.int64))
    told = length >= least
    asked = np.zeros(len(rows), np.uint64)
    asked[first["asked"].row] = first["asked"].key
    whole = mixed_bits(first["whole"].key * PRIME + worse[first["whole"].row])
    return {
        **first,
        "whole": Signs(first["whole"].row, whole, whole),
        "rejected": Signs(row[told], key[told], asked[row[told]]),
    }


def text_hashes(
    tokens: NDArray[np.integer], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Hashes, NDArray[np.int64]]:
    """Return row, number, hash and length of each text of rows `(rows, length)`.

    `numbers` says of which text of its row a token is, and 0 of none. A text's tokens are taken in their order.
    """
    at = np.flatnonzero(numbers)
    keys = at // tokens.shape[1] * MOST_TEXTS + numbers.ravel()[at]
    order = np.argsort(keys, kind="stable")
    keys, at = keys[order], at[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    lengths = np.diff(np.append(starts, len(keys)))
    within = np.arange(len(keys)) - np.repeat(starts, lengths)
    powers = np.cumprod(np.full(tokens.shape[1], PRIME, np.uint64), dtype=np.uint64)
    mixed = mixed_bits(tokens.ravel()[at].astype(np.int64).astype(np.uint64) + np.uint64(1)) * powers[within]
    sums = np.add.reduceat(mixed, starts) if len(starts) else mixed
    return keys[starts] // MOST_TEXTS, keys[starts] % MOST_TEXTS, mixed_bits(sums), lengths


def hashes_of_bytes(rows: NDArray[Any]) -> Hashes:
    """Return a hash of each record as it is stored, `(rows,)`."""
    stored = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    _, _, found, _ = text_hashes(stored, np.ones(stored.shape, np.int64))
    return found
