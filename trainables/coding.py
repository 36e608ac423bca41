"""How few bits trained weights take once they are rounded and coded by exp-Golomb codes (Teuhola, 1978)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

STEP_OF_LEVELS = 0.25  # deviations of a matrix between two of its occurrences
UNCODED_BITS = 16  # bits of each weight that is not coded: gains and biases
SYMBOL_BITS = 16  # bits of each level in the table that says which code it has
HEAD_BITS = 32  # bits of a matrix's step


class Coded(NamedTuple):
    """What coded weights take; the bits are those of one weight of a matrix."""

    bits: float  # by exp-Golomb codes, with the tables
    entropy: float  # no code of single weights takes less
    zeros: float  # share of the weights that are rounded to 0
    weights: int  # numbers in matrices
    bytes: int  # the whole model, also what is not coded


def coded_size(weights: Mapping[str, NDArray[Any]], step: float = STEP_OF_LEVELS) -> Coded:
    """Return what a model takes if each matrix is rounded to multiples of `step` of its deviations, and coded.

    Levels get codes by how often they occur, in each matrix by itself. Weights with one dimension stay.
    """
    bits, entropy, zeros, count, rest = 0.0, 0.0, 0, 0, 0
    for value in weights.values():
        if value.ndim < 2:
            rest += value.size
            continue
        counts, empty = occurrences(value, step)
        zeros += empty
        count += value.size
        bits += float(counts @ code_lengths(len(counts))) + SYMBOL_BITS * len(counts) + HEAD_BITS
        entropy -= float(counts @ np.log2(counts / value.size))
    if not count:
        return Coded(UNCODED_BITS, UNCODED_BITS, 0.0, 0, rest * UNCODED_BITS // 8)
    whole = int(np.ceil((bits + UNCODED_BITS * rest) / 8))
    return Coded(bits / count, entropy / count, zeros / count, count, whole)


def occurrences(values: NDArray[Any], step: float) -> tuple[NDArray[np.int64], int]:
    """Return how often each level occurs, the most frequent first, and how many values are of level 0."""
    given = values.astype(np.float64).ravel()
    deviation = float(given.std())
    rounded = (
        np.rint(given / (step * deviation)).astype(np.int64) if deviation > 0 else np.zeros(len(given), int)
    )
    found, counts = np.unique(rounded, return_counts=True)
    empty = counts[found == 0]
    return np.sort(counts)[::-1], int(empty[0]) if len(empty) else 0


def code_lengths(symbols: int) -> NDArray[np.float64]:
    """Return the bits of the exp-Golomb codes of the numbers 0, 1, ...: 1, 3, 3, 5, 5, 5, 5, 7, ..."""
    return 2 * np.floor(np.log2(np.arange(1, symbols + 1))) + 1
