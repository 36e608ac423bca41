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
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contexts import ContextModel, Job, losses, members, train_together
from benchmarks.proxies import alignment, excess_over, found_mixture
from benchmarks.texts import GIVEN, INSTALLED, held_out, rows
from policies.mixers.ado import ADO
from policies.mixers.aioli import Aioli
from policies.mixers.doge import DoGE
from policies.mixers.doremi import DoReMi
from policies.mixers.plain import Fixed, Proportional, Stratified
from policies.mixers.skillit import SkillIt, skills_graph
from policies.mixers.visits import Mixer, Mixing
from policies.statistics import student_tail
from trainables.settings import Recipe

BATCH, VALIDATION, TEST = 16, 128, 256  # rows: of a step, of each group held out
FEW = 250  # rows of a group that has few: 16 kB
RECIPE = Recipe(learning_rate=0.02, final_rate=0.02, weight_decay=0.0)
SETTINGS: dict[str, dict[str, int | None]] = {  # group -> training rows, None: all of its 9,000 to 25,000
    "2 groups": {"code": None, "law": FEW},
    "3 groups": {"code": None, "maths": FEW, "reviews": FEW},
    "5 groups": {"code": None, "docs": None, "law": FEW, "maths": FEW, "plays": FEW},
}
METHODS = (
    "stratified",
    "proportional",
    "best single group",
    "random mixtures",
    "grid search",
    "aioli",
    "aioli as published",
    "ado",
    "skill-it",
    "doremi",
    "doge",
)
COSTS = ("seeds", "extra_steps", "evaluations")
COLUMNS = "{:<10}{:<20}{:>10}{:>10}{:>10}{:>9}{:>13}{:>13}"


@dataclass(frozen=True)
class Plan:
    """What a process works through: some seeds of one setting."""

    setting: str
    seeds: tuple[int, ...]
    steps: int
    corpus: str
    folder: str


@dataclass(frozen=True)
class Result:
    """One run, or the choice among several: perplexity over groups, and what it cost besides its own steps."""

    test: float
    validation: float
    extra_steps: int = 0
    evaluations: int = 0


def ours(steps: int) -> Aioli:
    """Return our best variant, whose parameters are shares of the budget where they are steps."""
    return Aioli(
        rate=0.7,
        every=steps // 10,
        probe_share=0.3,
        sweeps=1,
        smoothing=0.5,
        memory=0.5,
        scale="column",
        noise=0.0,
        prior_steps=steps // 10,
        objective="perplexity",
    )


def published(steps: int) -> Aioli:
    """Return the settings of the published runs, its rounds as shares of this budget."""
    return Aioli(
        rate=0.2, every=steps // 5, probe_share=0.2, sweeps=4, smoothing=0.75, scale="total", noise=0.0
    )


def grid(groups: int) -> list[tuple[float, ...]]:
    """Return static mixtures around the equal one: each group's weight made three times as large or small."""
    found = []
    for factor in (3.0, 1 / 3):
        for group in range(groups if groups > 2 else 1):
            weights = np.ones(groups)
            weights[group] = factor
            found.append(tuple((weights / weights.sum()).tolist()))
    return found


class Bench:
    """Trains what the methods ask for on one setting, all seeds of a method as one stack."""

    def __init__(self, plan: Plan):
        self.plan = plan
        limits = SETTINGS[plan.setting]
        every = INSTALLED + GIVEN if set(limits) & set(GIVEN) else INSTALLED
        found = rows(plan.corpus, plan.folder, every)
        self.train = {name: found[name][:limit] for name, limit in limits.items()}
        self.held_out = held_out(plan.corpus, plan.folder, list(limits), VALIDATION, TEST)
        self.recipe = replace(RECIPE, steps=plan.steps, warmup=plan.steps // 20)
        self.references: list[ContextModel] = []  # the stratified members, once they are trained

    def make(self, mixers: Callable[[int], list[Mixer]]) -> list[list[ContextModel]]:
        """Return for each seed the members of its mixers."""
        table = [[Job(Mixing(mixer), seed) for mixer in mixers(seed)] for seed in self.plan.seeds]
        return [members(jobs, self.train, self.held_out, self.recipe, BATCH, self.plan.steps) for jobs in table]

    def results(self, mixer: Mixer, extra_steps: int = 0) -> list[Result]:
        """Return one run of a method a seed."""
        return self.results_of(lambda seed: mixer, extra_steps)

    def results_of(self, mixer: Callable[[int], Mixer], extra_steps: int = 0) -> list[Result]:
        made = self.make(lambda seed: [mixer(seed)])
        train_together([each for seed in made for each in seed], self.plan.steps)
        return [replace(result_of(seed[0]), extra_steps=extra_steps) for seed in made]

    def controls(self) -> dict[str, list[Result]]:
        """Return the mixtures that learn nothing; the grid and the single groups are chosen from by validation."""
        count, steps = len(self.train), self.plan.steps

        def mixers(seed: int) -> list[Mixer]:
            rng = np.random.default_rng([1, seed])
            drawn = [rng.dirichlet(np.ones(count)) for _ in range(2)]
            fixed = [*np.eye(count), *grid(count), *drawn]
            return [Stratified(), Proportional(), *(Fixed(tuple(np.asarray(each).tolist())) for each in fixed)]

        made = self.make(mixers)
        train_together([each for seed in made for each in seed], steps)
        found: dict[str, list[Result]] = {}
        for seed in made:
            self.references.append(seed[0])
            even, by_size, *rest = [result_of(member) for member in seed]
            single, searched, drawn = rest[:count], rest[count:-2], rest[-2:]
            chosen = {
                "stratified": even,
                "proportional": by_size,
                "best single group": choose(single, steps),
                "random mixtures": mean_of(drawn),
                "grid search": choose([even, *searched], steps),  # the equal mixture is a point of the grid
            }
            for name, result in chosen.items():
                found.setdefault(name, []).append(result)
        return found

    def skill_it(self) -> list[Result]:
        """Return runs along a graph from one short run a group, which are charged."""
        count, short = len(self.train), self.plan.steps // 5
        made = self.make(lambda seed: [Fixed(tuple(row.tolist())) for row in np.eye(count)])
        before = [losses(seed[0], "validation") for seed in made]
        train_together([each for seed in made for each in seed], short)
        graphs = {
            seed: skills_graph(start, np.array([losses(each, "validation") for each in group]))
            for seed, start, group in zip(self.plan.seeds, before, made, strict=True)
        }
        return self.results_of(lambda seed: SkillIt(graphs[seed], every=short), count * short)

    def proxied(self, proxy: Mixer, extra_steps: int) -> list[Result]:
        """Return runs at what a proxy run found; DoReMi's reference is the stratified member of the seed."""
        found = {}
        for seed, (model,), reference in zip(
            self.plan.seeds, self.make(lambda seed: [proxy]), self.references, strict=True
        ):
            measure = excess_over(reference) if isinstance(proxy, DoReMi) else alignment
            found[seed] = Fixed(tuple(found_mixture(model, measure).tolist()))
        return self.results_of(found.__getitem__, extra_steps)


def result_of(member: ContextModel) -> Result:
    test, validation = (float(np.exp(losses(member, split)).mean()) for split in ("test", "validation"))
    return Result(test, validation, evaluations=member.mixing_state["evaluations"])


def choose(results: list[Result], steps: int) -> Result:
    """Return the run that is best on the validation rows; the others were needed to find it."""
    best = min(results, key=lambda result: result.validation)
    return replace(best, extra_steps=(len(results) - 1) * steps, evaluations=len(results))


def mean_of(results: list[Result]) -> Result:
    return Result(
        *(float(np.mean([getattr(each, name) for each in results])) for name in ("test", "validation"))
    )


def work(plan: Plan) -> dict[str, list[Result]]:
    """Return every method's result for each seed; called in a process of its own."""
    torch.set_num_threads(1)
    bench, steps = Bench(plan), plan.steps
    return bench.controls() | {
        "aioli": bench.results(ours(steps)),
        "aioli as published": bench.results(published(steps)),
        "ado": bench.results(ADO(refit=steps // 5, skip=steps // 10)),
        "skill-it": bench.skill_it(),
        "doremi": bench.proxied(DoReMi(), 2 * steps),
        "doge": bench.proxied(DoGE(), steps),
    }


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
    for method in METHODS:
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
    row = next(row for row in table if row["method"] == "aioli")
    seen = (row["high"] - row["low"]) / 2
    even = next(row["perplexity"] for row in table if row["method"] == "stratified")
    print(
        f"{'':<10}stratified has {even:.3f}; a difference of aioli's below {seen:.3f} could not have been seen"
    )


def wins(tables: list[list[dict[str, Any]]]) -> dict[str, str]:
    """Return in how many settings each method's mean is below stratified's, and in how many for certain."""
    found = {}
    for method in METHODS[1:]:
        mine = [row for table in tables for row in table if row["method"] == method]
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
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--setting", action="append", choices=list(SETTINGS), help="may be given again")
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
    plans = [
        Plan(name, tuple(part.tolist()), steps, arguments.corpus, arguments.data)
        for name in chosen
        for part in parts
    ]
    tables = []
    print(COLUMNS.format("setting", "method", "delta", "low", "high", *COSTS))
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        pending = list(pool.map(work, plans))
    for place, name in enumerate(chosen):
        halves = pending[2 * place : 2 * place + 2]
        tables.append(summary(name, {method: halves[0][method] + halves[1][method] for method in METHODS}))
        show(tables[-1])
    print("\nbetter than stratified:")
    for method, won in wins(tables).items():
        print(f"  {method:<20}{won}")
    print(json.dumps({"results": [row for table in tables for row in table], "wins": wins(tables)}))


if __name__ == "__main__":
    main()
