"""Rows that ask for what stands earlier in them, among others; and the heads that look things up."""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.parts.digits_choices import auc
from shoal.trainables.decoder import Decoder, initialise, token_losses
from shoal.trainables.retrieval_heads import Probe, attending_to_all, best_heads, retrieval_scores
from shoal.trainables.scoring import row_losses
from shoal.trainables.settings import DecoderShape

VOCABULARY, LENGTH = 64, 64
PAIRS, KEY, VALUE = 6, 2, 3  # pairs of a row, and tokens of each key and value
SHAPE = DecoderShape(vocabulary=VOCABULARY, sequence_length=LENGTH, layers=2, heads=4, width=64)
Rows = NDArray[np.int64]


def lookup(rng: np.random.Generator) -> tuple[Rows, list[int]]:
    """Return a row of pairs and then of the same pairs in another order, and that order."""
    pairs = rng.integers(0, VOCABULARY, (PAIRS, KEY + VALUE))
    order = rng.permutation(PAIRS)
    whole = np.concatenate([pairs.ravel(), pairs[order].ravel()])
    filled = np.concatenate([rng.integers(0, VOCABULARY, LENGTH - len(whole)), whole])
    return filled, order.tolist()


def language(rng: np.random.Generator, rows: int) -> Rows:
    """Return rows of a chain in which each token has four that may follow it."""
    following = np.random.default_rng(7).integers(0, VOCABULARY, (VOCABULARY, 4))
    found = np.empty((rows, LENGTH), np.int64)
    found[:, 0] = rng.integers(0, VOCABULARY, rows)
    for place in range(1, LENGTH):
        found[:, place] = following[found[:, place - 1], rng.integers(0, 4, rows)]
    return found


def mixed(rng: np.random.Generator, rows: int, planted: int) -> Rows:
    return np.concatenate([np.array([lookup(rng)[0] for _ in range(planted)]), language(rng, rows - planted)])


def probe(rng: np.random.Generator) -> Probe:
    """Return a row that ends in the value of a key, which stands in its first half too."""
    row, order = lookup(rng)
    start = LENGTH - 2 * PAIRS * (KEY + VALUE) + order[-1] * (KEY + VALUE) + KEY
    return Probe(row, slice(start, start + VALUE), slice(LENGTH - VALUE, LENGTH))


def trained(seed: int, steps: int, batch: int = 32) -> Decoder:
    model, rng = Decoder(SHAPE), np.random.default_rng(seed)
    initialise(model, torch.Generator().manual_seed(seed))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps)
    for _ in range(steps):
        tokens = torch.from_numpy(mixed(rng, batch, batch // 2))
        optimiser.zero_grad()
        token_losses(model(tokens), tokens).mean().backward()
        optimiser.step()
        rate.step()
    return model.eval()


def attention_influence(seed: int, steps: int, share: float = 0.125, probes: int = 100) -> dict[str, Any]:
    """Rank a pool of 100 planted rows and 400 others by the loss without the heads that look things up."""
    began = time.perf_counter()
    model, rng = trained(seed, steps), np.random.default_rng(seed + 1000)
    scores = retrieval_scores(model, [probe(rng) for _ in range(probes)])
    heads = best_heads(scores, share)
    pool, planted = mixed(rng, 500, 100), np.arange(500) < 100

    def score(chosen: list[tuple[int, int]]) -> NDArray[np.float64]:
        base = row_losses(model, pool).astype(np.float64)
        with attending_to_all(model, chosen):
            return (row_losses(model, pool) - base) / base

    every = [(layer, head) for layer in range(scores.shape[0]) for head in range(scores.shape[1])]
    others = [head for head in every if head not in heads]
    random = [others[place] for place in rng.permutation(len(others))[: len(heads)]]
    return {
        "auc": auc(score(heads), planted),
        "auc_of_random_heads": auc(score(random), planted),
        "retrieval_scores": np.sort(scores.ravel())[::-1].round(3).tolist(),
        "loss_planted": float(row_losses(model, pool[:100]).mean()),
        "loss_others": float(row_losses(model, pool[100:]).mean()),
        "seconds": round(time.perf_counter() - began, 1),
    }
