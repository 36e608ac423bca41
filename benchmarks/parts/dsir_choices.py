"""DSIR on the demo's groups and as much noise: how near the target, how good to train on, how fast."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.policies.arrays import Vector
from shoal.policies.selection.cuts import RandomRows
from shoal.policies.selection.dsir import HELD_RATIO, Dsir
from shoal.policies.selection.interface import Candidates, Selector, select_rows
from shoal.policies.selection.ngrams import kl_divergence, log_ratios, text_buckets, token_buckets
from shoal.search.config.sections import Data
from shoal.search.corpus.build import Manifest, prepare_corpus
from shoal.trainables.decoder import Decoder, initialise, token_losses
from shoal.trainables.scoring import row_losses
from shoal.trainables.settings import DecoderShape

GRAMS, BUCKETS, LENGTH = 2, 10_000, 128
TARGET = "law"
SHAPE = DecoderShape(vocabulary=257, sequence_length=LENGTH, layers=2, heads=4, width=64)
Rows = NDArray[np.unsignedinteger]


class Texts(NamedTuple):
    pool: Rows  # three groups and as many lines of noise
    group: NDArray[np.int64]  # (rows,)
    target: Rows  # rows of one group that are not in the pool
    held_out: Rows  # other ones


def write_noise(folder: Path, lines: int, seed: int = 0) -> None:
    """Write lines of random letters with the lengths of words."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    with open(folder / "noise.jsonl", "w") as file:
        for _ in range(lines):
            words = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(60)]
            file.write(json.dumps({"text": " ".join(words)}) + "\n")


def build(corpus: str, megabytes: float) -> Texts:
    noise = Path(f"{corpus}-noise")
    if not noise.exists():
        write_noise(noise, round(3 * megabytes * 2**20 / 360))
    groups = {"code": "installed", "docs": "installed", TARGET: "installed", "noise": str(noise)}
    settings = {"megabytes": megabytes, "validation": 0.15, "test": 0.15, "sequence_length": LENGTH}
    data = Data(corpus=corpus, groups=groups, **settings)
    manifest, store = prepare_corpus(data, lambda line: None), Store(corpus)
    parts = {name: rows_of(manifest, store, name, "train") for name in groups}
    # the noise is as large as the three groups together
    parts["noise"] = parts["noise"][: sum(len(rows) for name, rows in parts.items() if name != "noise")]
    group = np.repeat(np.arange(len(parts)), [len(rows) for rows in parts.values()])
    held = [rows_of(manifest, store, TARGET, split) for split in ("validation", "test")]
    return Texts(np.concatenate(list(parts.values())), group, *held)


def rows_of(manifest: Manifest, store: Store, name: str, split: str) -> Rows:
    return np.concatenate(
        [as_rows(store.read_table(file)) for file in manifest.groups[name].splits[split].files]
    )


def counts(rows: Rows) -> NDArray[np.int64]:
    return np.bincount(token_buckets(rows, GRAMS, BUCKETS).ravel(), minlength=BUCKETS)


def chosen_rows(texts: Texts, budget: int, seed: int) -> tuple[dict[str, Rows], float]:
    """Return rows by DSIR, at temperature 1, at 20 and calibrated, and at random; and seconds of scoring.

    The n-grams of the calibrated ones are counted in the first half of the target alone.
    """
    began = time.perf_counter()
    raw = counts(texts.pool)
    ratio = log_ratios(counts(texts.target), raw, 0.5)
    scores = ratio_sums(ratio, texts.pool)
    seconds = time.perf_counter() - began
    pool = Candidates(np.arange(len(scores)), {"log_ratio": scores}, texts.group, {}, budget, seed)
    fitted, held = np.array_split(texts.target, 2)
    ratio = log_ratios(counts(fitted), raw, 0.5)
    aimed = {HELD_RATIO: ratio_sums(ratio, held)}
    by_half = pool._replace(columns={"log_ratio": ratio_sums(ratio, texts.pool)}, targets=aimed)

    def rows(policy: Selector, count: int, pool: Candidates = pool) -> Rows:
        return texts.pool[select_rows(policy, pool._replace(budget=count)).copies > 0]

    return {
        "dsir": rows(Dsir(), budget),
        "dsir_20": rows(Dsir(temperature=20.0), budget),
        "dsir_calibrated": rows(Dsir(calibrated=True), budget, by_half),
        "random": rows(RandomRows(), budget),
        "random_3": rows(RandomRows(), 3 * budget),
    }, seconds


def ratio_sums(ratio: Vector, rows: Rows) -> Vector:
    """Return each row's log-ratio, some rows at a time."""
    parts = np.array_split(rows, 20)
    return np.concatenate([ratio[token_buckets(part, GRAMS, BUCKETS)].sum(axis=1) for part in parts])


def target_loss(rows: Rows, held_out: Rows, steps: int, seed: int) -> float:
    """Return the held-out loss after training on rows for so many steps of 16."""
    model = Decoder(SHAPE)
    initialise(model, torch.Generator().manual_seed(seed))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        tokens = torch.from_numpy(rows[rng.integers(0, len(rows), 16)].astype(np.int64))
        optimiser.zero_grad()
        token_losses(model(tokens), tokens).mean().backward()
        optimiser.step()
        rate.step()
    return float(row_losses(model.eval(), held_out[:256]).mean())


def dsir(corpus: str, megabytes: float, steps: int, seeds: int) -> dict[str, Any]:
    """Three times as many random rows train for as many steps, and for three times as many."""
    texts = build(corpus, megabytes)
    theirs, budget = counts(texts.held_out), round(0.1 * len(texts.pool))
    found: dict[str, Any] = {"pool_rows": len(texts.pool), "chosen_rows": budget}
    losses: dict[str, list[float]] = {}
    for seed in range(seeds):
        chosen, seconds = chosen_rows(texts, budget, seed)
        if not seed:
            kl = {name: kl_divergence(theirs, counts(rows)) for name, rows in chosen.items()}
            found |= {"kl": kl, "kl_over_random": kl["dsir"] / kl["random"]}
            found |= {"kl_over_random_at_20": kl["dsir_20"] / kl["random"]}
            found |= {"kl_over_random_calibrated": kl["dsir_calibrated"] / kl["random"]}
            found["token_rows_per_second"] = len(texts.pool) / seconds
        jobs = [(name, rows, steps) for name, rows in chosen.items()]
        for name, rows, each in [*jobs, ("random_3_as_often", chosen["random_3"], 3 * steps)]:
            losses.setdefault(name, []).append(target_loss(rows, texts.held_out, each, seed))
    found["target_loss"] = losses
    mean = {name: float(np.mean(each)) for name, each in losses.items()}
    for name in ("random_3", "random_3_as_often"):
        found[f"target_loss_over_{name}"] = mean["dsir_20"] / mean[name]
    found["target_loss_calibrated_over_at_1"] = mean["dsir_calibrated"] / mean["dsir"]
    return found


def as_texts(rows: Rows) -> list[str]:
    return [bytes(row[row < 256].astype(np.uint8)).decode("utf-8", "replace") for row in rows]


def score_texts(raw: list[str], target: list[str]) -> NDArray[np.float64]:
    """Return the log-ratio of each text by words, hashed as the reference does."""
    known: dict[tuple[str, ...], int] = {}
    buckets = [text_buckets(text, GRAMS, BUCKETS, known) for text in raw]
    wanted = [text_buckets(text, GRAMS, BUCKETS, known) for text in target]
    both = [np.bincount(np.concatenate(each), minlength=BUCKETS) for each in (wanted, buckets)]
    ratio = log_ratios(both[0], both[1])
    return np.array([ratio[each].sum() for each in buckets])


def beside_peer(corpus: str, megabytes: float, peer: str, most: int = 4000) -> dict[str, Any]:
    """Score the same lines by the package data-selection, which lies in the folder `peer`, and by ours."""
    texts = build(corpus, megabytes)
    some = np.random.default_rng(0).choice(len(texts.pool), min(most, len(texts.pool)), replace=False)
    raw, target = as_texts(texts.pool[some]), as_texts(texts.target[:1000])
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in (("raw", raw), ("target", target)):
            Path(folder, f"{name}.jsonl").write_text(
                "".join(json.dumps({"text": line}) + "\n" for line in lines)
            )
        environment = os.environ | {"PYTHONPATH": peer}
        subprocess.run(
            [sys.executable, "-c", PEER, folder],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        told = json.loads(Path(folder, "told.json").read_text())
        theirs = np.load(Path(folder, "weights.npy"))
    began = time.perf_counter()
    ours = score_texts(raw, target)
    by_words = time.perf_counter() - began
    began = time.perf_counter()
    chosen_rows(
        texts._replace(pool=texts.pool[some], group=texts.group[some], target=texts.target[:1000]), 10, 0
    )
    by_tokens = time.perf_counter() - began
    count = len(raw) // 10
    first, second = (set(np.argsort(-each, kind="stable")[:count].tolist()) for each in (ours, theirs))
    return {
        "rows_per_second_of_peer": len(raw) / told["seconds"],
        "rows_per_second_by_words": len(raw) / by_words,
        "rows_per_second": len(raw) / by_tokens,
        "rows_per_second_over_peer": told["seconds"] / by_tokens,
        "rows_per_second_by_words_over_peer": told["seconds"] / by_words,
        "largest_difference_of_scores": float(np.abs(ours - theirs).max()),
        "same_choice": len(first & second) / count,
    }


PEER = """
import json, sys, time
from pathlib import Path
import numpy as np
from data_selection import HashedNgramDSIR

folder = sys.argv[1]
if __name__ == "__main__":
    began = time.perf_counter()
    made = HashedNgramDSIR([folder + "/raw.jsonl"], [folder + "/target.jsonl"], folder + "/cache", num_proc=2,
                           ngrams=2, num_buckets=10000, min_example_length=0)
    made.fit_importance_estimator(num_tokens_to_fit="all")
    made.compute_importance_weights()
    seconds = time.perf_counter() - began
    parts = sorted(Path(folder, "cache/log_importance_weights").glob("*.npy"), key=lambda path: int(path.stem))
    parts = [np.load(part) for part in parts]
    weights = np.empty(sum(map(len, parts)))
    for number, part in enumerate(parts):  # rows were dealt out to the processes one by one
        weights[number::len(parts)] = part
    np.save(folder + "/weights.npy", weights)
    Path(folder, "told.json").write_text(json.dumps({"seconds": seconds}))
"""
