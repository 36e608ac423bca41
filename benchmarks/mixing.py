"""Mixing policies on one footing: mean test perplexity over groups at equal training steps, minus stratified's.

Two, three and five groups of real text, of which some have few rows: there more of the same teaches less and
less, so mixtures matter. All is paired: in one seed every method begins with the same weights and reads each
group's rows in the same order. Probe steps are training steps of the budget. What a method needs besides one
run (other runs, proxies, references) is charged as extra steps. Aioli's parameters are the same for all
settings; they were chosen on other seeds (100 and up). The last line is one JSON object.
"""

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.parts.mixers import METHODS, SETTINGS, Plan, Result, work
from benchmarks.parts.texts import INSTALLED, rows
from shoal.policies.statistics import student_tail

COSTS = ("seeds", "extra_steps", "evaluations")
COLUMNS = "{:<10}{:<20}{:>10}{:>10}{:>10}{:>9}{:>13}{:>13}"


def interval(values: NDArray[np.float64]) -> float:
    """Return half the width of Student's 95 % interval of the mean; 0 of values that are all the same."""
    freedom = len(values) - 1
    low, high = 0.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, freedom) > 0.025 else (low, middle)
    return float(low * values.std(ddof=1) / np.sqrt(len(values)))


def summary(setting: str, found: dict[str, list[Result]]) -> list[dict[str, Any]]:
    """Return a row a method: its test perplexity less stratified's of the same seed, and what it cost."""
    even = np.array([result.test for result in found["stratified"]])
    table = []
    for method in [method for method in METHODS if method in found]:
        results = found[method]
        differences = np.array([result.test for result in results]) - even
        half = interval(differences)
        table.append(
            {
                "setting": setting,
                "method": method,
                "delta_perplexity": round(float(differences.mean()), 4),
                "low": round(float(differences.mean()) - half, 4),
                "high": round(float(differences.mean()) + half, 4),
                "perplexity": round(float(even.mean() + differences.mean()), 4),
                "seeds": len(results),
                "extra_steps": results[0].extra_steps,
                "evaluations": results[0].evaluations,
            }
        )
    return table


def show(table: list[dict[str, Any]]) -> None:
    for row in table:
        numbers = [f"{row[name]:+.3f}" for name in ("delta_perplexity", "low", "high")]
        print(
            COLUMNS.format(row["setting"], row["method"], *numbers, *(row[name] for name in COSTS)), flush=True
        )
    even, *others = table
    name = "aioli" if any(row["method"] == "aioli" for row in others) else others[0]["method"]
    seen = next((row["high"] - row["low"]) / 2 for row in others if row["method"] == name)
    print(
        f"{'':<10}stratified has {even['perplexity']:.3f}; a difference of {name}'s below {seen:.3f} could not "
        f"have been seen"
    )


def wins(tables: list[list[dict[str, Any]]]) -> dict[str, str]:
    """Return in how many settings each method's mean is below stratified's, and in how many for certain."""
    found = {}
    for method in METHODS[1:]:
        mine = [row for table in tables for row in table if row["method"] == method]
        if not mine:
            continue
        better = sum(row["delta_perplexity"] < 0 for row in mine)
        certain = sum(row["high"] < 0 for row in mine)
        worse = sum(row["low"] > 0 for row in mine)
        found[method] = f"{better} of {len(mine)}, {certain} certain; {worse} certainly worse"
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixing", description=__doc__)
    parser.add_argument(
        "--data", default=os.environ.get("SHOAL_DATA", "../shared/data"), help="small data sets"
    )
    parser.add_argument("--corpus", default="runs/corpus/mixing", help="where the text is, or is to be built")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--setting", action="append", choices=list(SETTINGS), help="may be given again")
    parser.add_argument(
        "--method", action="append", choices=list(METHODS[1:]), help="only these; may be given again"
    )
    parser.add_argument("--full", action="store_true", help="20 seeds of 1000 steps")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    seeds, steps = (20, 1000) if arguments.full else (arguments.seeds, arguments.steps)
    there = [
        name for name in SETTINGS if os.path.isdir(arguments.data) or set(SETTINGS[name]) <= set(INSTALLED)
    ]
    chosen = [name for name in arguments.setting or SETTINGS if name in there]
    rows(arguments.corpus, arguments.data, INSTALLED)  # built once, before the processes
    parts = np.array_split(np.arange(arguments.first, arguments.first + seeds), 2)
    methods = tuple(name for name in METHODS if name == METHODS[0] or name in (arguments.method or METHODS))
    plans = [
        Plan(name, tuple(part.tolist()), steps, arguments.corpus, arguments.data, methods)
        for name in chosen
        for part in parts
    ]
    tables = []
    print(COLUMNS.format("setting", "method", "delta", "low", "high", *COSTS))
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        halves = pool.map(work, plans)
        for name in chosen:
            first, second = next(halves), next(halves)
            tables.append(summary(name, {method: first[method] + second[method] for method in first}))
            show(tables[-1])
    print("\nbetter than stratified:")
    for method, won in wins(tables).items():
        print(f"  {method:<20}{won}")
    print(json.dumps({"results": [row for table in tables for row in table], "wins": wins(tables)}))


if __name__ == "__main__":
    main()
