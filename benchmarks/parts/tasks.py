"""What the quality benchmark trains: digits by a perceptron, and the demo's text by a small decoder."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shoal.cluster.row_order import RowOrder
from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.policies.mixing import normalise
from shoal.policies.space import Float, Space
from shoal.search.config.sections import Data
from shoal.search.corpus.batches import MixedBatches, file_rows
from shoal.search.corpus.build import prepare_corpus
from shoal.search.corpus.held_out import sampled_rows
from shoal.trainables.batches import Shuffled
from shoal.trainables.language import LanguageModel
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy, dropout
from shoal.trainables.settings import DecoderShape, Recipe

RATE = Float(1e-4, 1.0, log=True)
MEMBERS = 16


@dataclass(frozen=True)
class Task:
    """`make(hyperparameters, seed)` gives a member; all methods get `members * steps` member-steps."""

    name: str
    make: Callable[[dict[str, Any], int], Network]
    space: Space
    members: int
    steps: int
    interval: int
    unit: str  # of what a member is judged by
    higher: bool  # whether more of it is better


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(784, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor, rate: Any) -> torch.Tensor:
        logits: torch.Tensor = self.last(dropout(self.first(x).relu(), rate, self.training))
        return logits


class Digits(Network):
    """784-64-10, batches of 64; the score is minus the cross-entropy, which tells more than the accuracy."""

    def build(self) -> nn.Module:
        return Layers()

    def loss(self, module: nn.Module, batch: Any, numbers: Any) -> torch.Tensor:
        images, labels = batch
        return cross_entropy(module(images, numbers["dropout"]), labels, numbers["label_smoothing"]).mean()

    def score(self, module: nn.Module, rows: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, labels = rows
        logits = module(images, 0.0)
        right = (logits.argmax(dim=-1) == labels).double().mean()
        return -cross_entropy(logits, labels).mean().double(), {"accuracy": right}


@cache
def digits(folder: str) -> dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Return MNIST's images, split into 7,000 to train on, 1,000 to choose by and 2,000 to judge by."""
    raw = gzip.decompress(Path(folder, "images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / 255
    raw = gzip.decompress(Path(folder, "labels-idx1-ubyte.gz").read_bytes())
    labels = np.frombuffer(raw, np.uint8, offset=8).astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    parts = {"train": order[:7000], "validation": order[7000:8000], "test": order[8000:10000]}
    return {name: (images[part], labels[part]) for name, part in parts.items()}


def make_digits(folder: str, hyperparameters: dict[str, Any], seed: int) -> Network:
    parts = digits(folder)
    # without a decay of the rate or of the weights: what there is of a schedule has to be found
    recipe = Recipe(steps=600, warmup=20, final_rate=1.0, optimiser="sgd", clip=10.0, weight_decay=0.0)
    return Digits(recipe, hyperparameters, Shuffled(parts["train"], 64, seed), parts, seed)


class Memory:
    """The rows of one group, all in memory, in the order that a run streams them."""

    def __init__(self, store: Store, group: str, split: Any, seed: int):
        self.order = RowOrder(group, file_rows(split), seed)
        self.rows = np.concatenate([as_rows(store.read_table(file)) for file in split.files])

    def take(self, cursor: int, count: int) -> NDArray[np.uint16]:
        return self.rows[self.order.places(cursor, count)]


@cache
def text(corpus: str) -> tuple[dict[str, Memory], dict[str, dict[str, NDArray[np.uint16]]]]:
    settings = Data(
        corpus=corpus,
        groups=dict.fromkeys(("code", "docs", "law"), "installed"),
        sequence_length=16,
        megabytes=2,
    )
    manifest, store = prepare_corpus(settings, lambda line: None), Store(corpus)
    streams = {name: Memory(store, name, group.splits["train"], 0) for name, group in manifest.groups.items()}
    held_out = {
        split: {
            name: sampled_rows(store, manifest, name, split, 128 if split == "validation" else 512)
            for name in manifest.groups
        }
        for split in ("validation", "test")
    }
    return streams, held_out


def make_decoder(corpus: str, hyperparameters: dict[str, Any], seed: int) -> Network:
    streams, held_out = text(corpus)
    shape = DecoderShape(vocabulary=257, sequence_length=16, layers=1, heads=2, width=16)
    # small batches for long: after 600 steps of 8 x 32 tokens a rate lowered by hand ends no better than the
    # best constant one, so there was no schedule to find
    recipe = Recipe(steps=4000, warmup=20, final_rate=1.0)
    batches = MixedBatches(streams, normalise([1.0] * len(streams)), 4)
    return LanguageModel(recipe, hyperparameters, batches, held_out, seed, shape=shape)


def tasks(mnist: str | None, corpus: str) -> list[Task]:
    found = []
    if mnist:
        space = {"learning_rate": RATE, "momentum": Float(0.0, 0.99), "dropout": Float(0.0, 0.6)}
        found.append(Task("digits", partial(make_digits, mnist), space, MEMBERS, 600, 30, "accuracy", True))
    rate = Float(1e-4, 1e-1, log=True)
    space = {"learning_rate": rate, "weight_decay": Float(1e-3, 1.0, log=True), "beta2": Float(0.9, 0.999)}
    found.append(Task("text", partial(make_decoder, corpus), space, MEMBERS, 4000, 200, "loss", False))
    return found
