"""How well laws fitted to small runs rank mixtures that they have not seen: RegMix's published tables.

512 runs of a 1M model are fitted; the losses of 256 other mixtures at 1M and 60M and of 64 at 1B are ranked.
The tables lie in `regmix/` of the folder that SHOAL_DATA names. The last line is one JSON object.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.laws.loglinear import log_linear, ridge
from shoal.policies.ranks import spearman
from shoal.search.runs.boosting import boosted

DATA = Path(os.environ.get("SHOAL_DATA", "../shared/data")) / "regmix"
SIZES = ("1m", "60m", "1B")
PILE_CC = "metric/the_pile_pile_cc_val_loss"
PUBLISHED = "published, LightGBM on Pile-CC: 0.985 at 1M, 0.986 at 60M, 0.971 at 1B; linear 0.901, 0.893, 0.880"
ROW = "{:<12}{:>9}" + "{:>10}{:>10}" * 3


def table(name: str) -> tuple[list[str], Vector]:
    """Return the columns' names and the rows, without the index."""
    path = DATA / f"{name}.csv"
    if not path.exists():
        raise SystemExit(
            f"{path} must be there: set SHOAL_DATA to the folder that holds regmix/ (RegMix's data/*.csv)."
        )
    with path.open() as file:
        columns = file.readline().strip().split(",")[1:]
    return columns, np.genfromtxt(path, delimiter=",", skip_header=1)[:, 1:]


def runs(split: str, size: str) -> tuple[Vector, Vector, int]:
    """Return mixtures (runs, 17), losses (runs, 13) and the column of Pile-CC."""
    shares, (columns, losses) = table(f"{split}_mixture_{size}")[1], table(f"{split}_pile_loss_{size}")
    # three decimals: rows sum to 0.996 to 1.003
    return shares / shares.sum(axis=1, keepdims=True), losses, columns.index(PILE_CC)


def judged(predict: Callable[[Vector], Vector], size: str) -> dict[str, float]:
    mixtures, losses, pile_cc = runs("test", size)
    predicted = predict(mixtures)
    found = [spearman(*pair) for pair in zip(predicted.T, losses.T, strict=True)]
    return {"mean": float(np.mean(found)), "pile_cc": found[pile_cc], "least": min(found)}


def measured(regress: Callable[[Vector, Vector], Callable[[Vector], Vector]]) -> dict[str, Any]:
    mixtures, losses, _ = runs("train", "1m")
    began = time.perf_counter()
    predict = regress(mixtures, losses)
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 2)} | {size: judged(predict, size) for size in SIZES}


def shuffled(regress: Callable[[Vector, Vector], Callable[[Vector], Vector]]) -> float:
    """Return the mean Spearman at 1M after the runs' losses were shuffled: what a broken link would give."""
    mixtures, losses, _ = runs("train", "1m")
    order = np.random.default_rng(0).permutation(len(losses))
    return judged(regress(mixtures, losses[order]), "1m")["mean"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regmix", description=__doc__)
    parser.add_argument("--full", action="store_true", help="also trees, which need the extra `boosting`")
    arguments = parser.parse_args()
    methods: dict[str, Any] = {"ridge": ridge, "log_linear": log_linear}
    if arguments.full:
        methods["boosted"] = boosted
    print("Spearman's correlation on unseen mixtures: mean of 13 losses, and Pile-CC alone")
    print(ROW.format("", "fit, s", *(f"{size}{what}" for size in SIZES for what in ("", " P-CC"))))
    found = {name: measured(regress) for name, regress in methods.items()}
    for name, numbers in found.items():
        cells = [f"{numbers[size][key]:.4f}" for size in SIZES for key in ("mean", "pile_cc")]
        print(ROW.format(name, numbers["seconds"], *cells), flush=True)
    print(PUBLISHED)
    law = found["log_linear"]
    keys = {
        "mean_spearman_1m": round(law["1m"]["mean"], 4),
        "mean_spearman_60m": round(law["60m"]["mean"], 4),
        "mean_spearman_1b": round(law["1B"]["mean"], 4),
        "pile_cc_1b": round(law["1B"]["pile_cc"], 4),
        "shuffled_1m": round(shuffled(log_linear), 4),
    }
    print(json.dumps(keys | {"methods": found}))


if __name__ == "__main__":
    main()
