"""Rows that repeat what stands earlier in them, among others; and the heads that look things up."""

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

VOCABULARY, LENGTH = 32, 32
SHORTEST, LONGEST = 4, 16  # a planted row repeats so many tokens, or up to one fewer
VALUE = 3  # tokens of a probe's value
SHAPE = DecoderShape(vocabulary=VOCABULARY, sequence_length=LENGTH, layers=2, heads=4, width=64)
SHARPER = 8.0  # attention begins so much less even: heads that look things up then appear sooner
Rows = NDArray[np.int64]


def repeated(rng: np.random.Generator, period: int) -> Rows:
    """Return a row that repeats random tokens, so that all but the first can be looked up in it."""
    return np.resize(rng.integers(0, VOCABULARY, period), LENGTH)


def planted_rows(rng: np.random.Generator, rows: int) -> Rows:
    return np.array([repeated(rng, int(rng.integers(SHORTEST, LONGEST))) for _ in range(rows)])


def language(rng: np.random.Generator, rows: int) -> Rows:
    """Return rows of a chain in which each token has four that may follow it."""
    following = np.random.default_rng(7).integers(0, VOCABULARY, (VOCABULARY, 4))
    found = np.empty((rows, LENGTH), np.int64)
    found[:, 0] = rng.integers(0, VOCABULARY, rows)
    for place in range(1, LENGTH):
        found[:, place] = following[found[:, place - 1], rng.integers(0, 4, rows)]
    return found


def mixed(rng: np.random.Generator, rows: int, planted: int) -> Rows:
    return np.concatenate([planted_rows(rng, planted), language(rng, rows - planted)])


def probe(rng: np.random.Generator) -> Probe:
    """Return a row whose last tokens stand in it once before."""
    period = int(rng.integers(LONGEST - 2, LONGEST))
    row = repeated(rng, period)
    return Probe(row, slice(LENGTH - VALUE - period, LENGTH - period), slice(LENGTH - VALUE, LENGTH))


def trained(seed: int, steps: int, batch: int = 64) -> Decoder:
    model, rng = Decoder(SHAPE), np.random.default_rng(seed)
    initialise(model, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for block in model.blocks:
            block.attention.project.weight.mul_(SHARPER)  # type: ignore[union-attr]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, steps, pct_start=0.1)
    for _ in range(steps):
        tokens = torch.from_numpy(mixed(rng, batch, batch * 3 // 4))
        optimiser.zero_grad()
        token_losses(model(tokens), tokens).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
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
    return {
        "auc": auc(score(heads), planted),
        "auc_of_each_other_head": [
            round(auc(score([head]), planted), 3) for head in every if head not in heads
        ],
        "retrieval_scores": np.sort(scores.ravel())[::-1].round(3).tolist(),
        "loss_planted": float(row_losses(model, pool[:100]).mean()),
        "loss_others": float(row_losses(model, pool[100:]).mean()),
        "seconds": round(time.perf_counter() - began, 1),
    }
