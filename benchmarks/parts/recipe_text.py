"""Decoders on the text of Python's own modules, for the benchmarks of recipes: bytes, in rows of 64."""

import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.trainables.batches import Shuffled
from shoal.trainables.language import LanguageModel
from shoal.trainables.settings import DecoderShape, Recipe

LENGTH, BATCH = 64, 16
ROWS, HELD_OUT = 40_000, 512
HEAD = 16  # width of an attention head


@cache
def python_text() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return rows to train on and held-out rows, `(rows, LENGTH)`: the latter of other modules."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [file.read_bytes() for file in files]
    train = b"".join(text for place, text in enumerate(texts) if place % 8)
    held_out = b"".join(text for place, text in enumerate(texts) if not place % 8)
    return as_rows_of_bytes(train, ROWS, 0), as_rows_of_bytes(held_out, HELD_OUT, 1)


def as_rows_of_bytes(text: bytes, count: int, seed: int) -> NDArray[np.uint16]:
    whole = np.frombuffer(text, np.uint8)[: len(text) // LENGTH * LENGTH].reshape(-1, LENGTH).astype(np.uint16)
    return np.random.default_rng(seed).permutation(whole)[:count]


def decoder(recipe: Recipe, seed: int, width: int, layers: int = 2, **hyperparameters: Any) -> LanguageModel:
    """Return a member; the rows of a seed are the same whatever else differs."""
    train, held_out = python_text()
    shape = DecoderShape(256, LENGTH, layers=layers, heads=width // HEAD, width=width)
    rows = Shuffled(train, batch=BATCH, seed=seed)
    return LanguageModel(recipe, hyperparameters, rows, {"validation": {"text": held_out}}, seed, shape=shape)


def loss_after(member: LanguageModel) -> float:
    """Train all of the recipe's steps; return the held-out loss in nats a byte."""
    member.train(member.recipe.steps)
    return -member.evaluate()[0]
