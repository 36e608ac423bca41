"""Hashed n-grams: how texts and rows of tokens are counted, and how two distributions compare.

Texts are hashed by SHA-256 as in the reference (Xie et al., 2023); rows of tokens by a mixer of 64 bits, some
thousand times as fast.
"""

import hashlib
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.sampling.chance import mixed_bits

WORDS = re.compile(r"\w+|[^\w\s]+")
SMALLEST = 1e-8  # added to a share before its logarithm is taken
Buckets = NDArray[np.int64]


def words_of(text: str) -> list[str]:
    """Return runs of letters and of punctuation, in lower case."""
    return WORDS.findall(text.lower())


def bucket_of(words: Iterable[str], buckets: int) -> int:
    """Return the bucket of an n-gram: SHA-256 of the words joined by blanks."""
    return int(hashlib.sha256(" ".join(words).encode()).hexdigest(), 16) % buckets


def text_buckets(text: str, grams: int, buckets: int, known: dict[tuple[str, ...], int]) -> Buckets:
    """Return the bucket of each n-gram of 1 to `grams` words of a text; `known` keeps them for the next one."""
    words, found = words_of(text), []
    for size in range(1, grams + 1):
        for start in range(len(words) - size + 1):
            gram = tuple(words[start : start + size])
            if gram not in known:
                known[gram] = bucket_of(gram, buckets)
            found.append(known[gram])
    return np.array(found, np.int64)


def token_buckets(
    rows: NDArray[np.unsignedinteger], grams: int, buckets: int, segment: NDArray[np.integer] | None = None
) -> Buckets:
    """Return the bucket of each n-gram of 1 to `grams` tokens of rows `(rows, length)`: `(rows, n-grams)`.

    With `segment`, the number of the text that each token belongs to and 0 for padding, n-grams that are not
    within one text have the bucket `buckets`, which stands for none.
    """
    hashed = mixed_bits(rows.astype(np.uint64) + np.uint64(1))
    parts, joined = [], hashed
    for size in range(1, grams + 1):
        if size > 1:
            # the order of the tokens counts, so the sum is scrambled at each step
            joined = mixed_bits(joined[:, :-1] * np.uint64(3) + hashed[:, size - 1 :])
        part = (joined % np.uint64(buckets)).astype(np.int64)
        parts.append(part if segment is None else np.where(within_one_text(segment, size), part, buckets))
    return np.concatenate(parts, axis=1)


def within_one_text(segment: NDArray[np.integer], size: int) -> NDArray[np.bool_]:
    """Say of each stretch of `size` tokens whether it lies within one text, `(rows, stretches)`.

    Texts have numbers that rise along a row, and padding has 0.
    """
    first, last = segment[:, : segment.shape[1] - size + 1], segment[:, size - 1 :]
    return np.asarray((first == last) & (first > 0))


def log_ratios(target: NDArray[np.integer], raw: NDArray[np.integer], pseudo: float = 0.0) -> Vector:
    """Return log(p / q) of each bucket, from counts in the target and in the raw pool.

    `pseudo` is added to the target's counts: without it a bucket that a small target lacks counts -18.
    """
    return np.asarray(np.log(shares_of(target, pseudo) + SMALLEST) - np.log(shares_of(raw) + SMALLEST))


def shares_of(counts: NDArray[np.integer], pseudo: float = 0.0) -> Vector:
    raised = counts.astype(np.float64) + pseudo
    return np.asarray(raised / max(float(raised.sum()), 1e-300))


def kl_divergence(target: NDArray[np.integer], other: NDArray[np.integer]) -> float:
    """Return KL(target || other) of two counts over buckets, in nats."""
    p, q = shares_of(target), shares_of(other)
    held = p > 0
    return float((p[held] * (np.log(p[held] + SMALLEST) - np.log(q[held] + SMALLEST))).sum())
