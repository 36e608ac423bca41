"""Dataset Quantization: bins from representative to diverse, and a share of each (Zhou et al., 2023)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.sampling.chance import keys, uniform
from shoal.policies.selection.interface import Budget, Candidates, Selected
from shoal.policies.selection.picking import best_rows, lowest, quotas

EQUAL = 1e-9  # gains this close count as equal, so that rounding does not decide


@dataclass(frozen=True)
class Quantise:
    """Cut the pool into bins by GraphCut's gain on `embedding`, and draw the same share of each bin.

    The gain of a row is its similarity to what is left less twice its similarity to what its bin has: early
    bins hold representative rows, late ones diverse rows. Similarity is the cosine. The greedy choice takes
    time in the square of the rows, so a pool of more than `shard_rows` is cut into shards at random, which have
    bins of their own; with `by_group` so is each group, as for balanced classes.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    aims: ClassVar[frozenset[str]] = frozenset()
    budget: ClassVar[Budget] = "needed"
    bins: int = 10  # bins into which the rows are sorted; each gives its share
    shard_rows: int = 8192
    by_group: bool = False

    def __post_init__(self) -> None:
        if not self.bins >= 1:
            raise ValueError(f"bins must be at least 1, but got {self.bins}.")
        if not self.shard_rows >= self.bins:
            raise ValueError(f"shard_rows must be at least bins ({self.bins}), but got {self.shard_rows}.")

    def select(self, pool: Candidates) -> Selected:
        unit = unit_rows(pool.columns["embedding"].astype(np.float64))
        shards = -(-len(unit) // self.shard_rows)
        shard = (keys(pool.seed, "shard", 0, pool.ids) % np.uint64(shards)).astype(np.int64)
        part = shard + shards * (pool.group.astype(np.int64) if self.by_group else 0)
        numbers = np.empty(len(unit), np.int64)
        for each in np.unique(part):
            inside = np.flatnonzero(part == each)
            numbers[inside] = graph_cut_bins(unit[inside], self.bins)
        sizes = np.bincount(numbers, minlength=self.bins)
        key = -uniform(pool.seed, "quantise", 0, pool.ids)
        copies, margin = np.zeros(len(unit), np.int32), np.full(len(unit), np.nan)
        for number, count in enumerate(quotas(sizes.astype(np.float64), pool.goal, sizes).tolist()):
            inside = np.flatnonzero(numbers == number)
            chosen = best_rows(key[inside], count)
            copies[inside], margin[inside] = chosen, key[inside] - lowest(key[inside], chosen)
        reasons = [
            f"{word} bin {number}" for number in range(self.bins) for word in ("not drawn from", "drawn from")
        ]
        facts = {f"bin_{number}": float(size) for number, size in enumerate(sizes)}
        return Selected(copies, margin, (2 * numbers + copies).astype(np.int16), tuple(reasons), facts)


def unit_rows(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows of length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def graph_cut_bins(unit: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return the bin of each row, from greedy picks; bins differ by one row at most, the first are larger.

    As similarity is a dot product, a row's gain is its product with one vector: the sum of what was left as
    the bin began, less twice the sum of what the bin has. Of equal gains the first row is picked.
    """
    numbers = np.full(len(unit), bins - 1)
    left = np.arange(len(unit))
    sizes = [len(part) for part in np.array_split(left, bins)]
    for number, size in enumerate(sizes[:-1]):
        block = unit[left]
        gains: Vector = block @ block.sum(axis=0)
        taken = np.zeros(len(left), bool)
        for _ in range(size):
            place = int(np.argmax(gains >= gains.max() - EQUAL))
            taken[place] = True
            gains -= 2 * (block @ block[place])
            gains[place] = -np.inf
        numbers[left[taken]] = number
        left = left[~taken]
    return numbers
