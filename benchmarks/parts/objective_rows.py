"""Rows of real data for the benchmark of objectives: digits, reviews, and pairs of the installed documentation.

Each function returns columns of the training, validation or test rows, which are the parts 0, 1 and 2.
"""

import re
import zlib
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from examples.pairs import texts, vector

Columns = dict[str, np.ndarray]
PARTS = (0, 0.6, 0.75, 1)  # where the rows of each part begin, as shares of all
WORDS = 1024  # places of hashed words of a review
LABELLED = 0.04  # share of the training digits whose label is known
FEW = 9  # negative sentences for each positive one in training


def of_part(count: int, part: int, seed: int) -> np.ndarray:
    """Return which rows are of a part, in a fixed random order."""
    order = np.random.default_rng(seed).permutation(count)
    return order[int(PARTS[part] * count) : int(PARTS[part + 1] * count)]


@cache
def digits(part: int, _: int = 0) -> Columns:
    """Return scikit-learn's digits; of the training rows 4 % have a label."""
    from sklearn.datasets import load_digits

    x, label = load_digits(return_X_y=True)
    rows = of_part(len(x), part, 60)
    unknown = (np.random.default_rng(61).random(len(rows)) > LABELLED) & (part == 0)
    return {
        "x": (x[rows] / 8 - 1).astype(np.float32),
        "label": label[rows].astype(np.int64),
        "unlabelled": unknown.astype(np.int64),
    }


def hashed_words(text: str, width: int) -> np.ndarray:
    """Return the words and pairs of words of a text, each at a place that its hash gives, of length 1."""
    words = re.findall(r"[a-z']+", text.lower())
    found = np.zeros(width, np.float32)
    for word in words + [f"{one} {other}" for one, other in pairwise(words)]:
        place = zlib.crc32(word.encode())
        found[place % width] += 1 if place // width % 2 else -1
    return found * np.sqrt(width) / max(float(np.linalg.norm(found)), 1e-9)


@cache
def reviews(folder: str, part: int, _: int = 0) -> Columns:
    """Return sentences of SST-2's reviews; of the training rows one in ten is positive, of the others half."""
    found = reviews_in(folder, "train" if part < 2 else "test")
    if part < 2:  # four fifths of the training file train
        cut = 4 * len(found) // 5
        found = found[:cut] if part == 0 else found[cut:]
    kept = len([label for _, label in found if label == 0]) // FEW if part == 0 else len(found)
    positive = [pair for pair in found if pair[1] == 1][:kept]
    found = [pair for pair in found if pair[1] == 0] + positive
    x = np.stack([hashed_words(text, WORDS) for text, _ in found])
    return {"x": x, "label": np.array([label for _, label in found], np.int64)}


@cache
def reviews_in(folder: str, name: str) -> list[tuple[str, int]]:
    """Return the texts of a file of lines `text TAB label`, in a fixed random order."""
    lines = Path(folder, f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    found = [line.rpartition("\t") for line in lines]
    pairs = [(text, int(label)) for text, _, label in found if label in ("0", "1")]
    return [pairs[place] for place in np.random.default_rng(70).permutation(len(pairs))]


@cache
def documentation(part: int, _: int = 0) -> Columns:
    """Return docstrings: the first sentence asks, the rest answers. A guide sees pairs of words too."""
    asked = [pair for found in texts() for pair in found.items()]
    chosen = [asked[place] for place in of_part(len(asked), part, 80)]
    found = {
        name: np.stack([vector(pair[side]) for pair in chosen])
        for side, name in enumerate(("query", "positive"))
    }
    guides = [np.stack([hashed_words(pair[side], WORDS) for pair in chosen]) for side in (0, 1)]
    return found | dict(zip(("guide_query", "guide_positive"), guides, strict=True))
