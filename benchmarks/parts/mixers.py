"""What the benchmark `mixing` compares: the settings, and every method's runs on one of them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from benchmarks.parts.contexts import ContextModel, Job, losses, members, train_together
from benchmarks.parts.texts import GIVEN, INSTALLED, held_out, rows
from shoal.policies.mixers.ado import ADO
from shoal.policies.mixers.aioli import Aioli
from shoal.policies.mixers.doge import DoGE
from shoal.policies.mixers.doremi import DoReMi
from shoal.policies.mixers.mixer import Mixer
from shoal.policies.mixers.plain import Fixed, Proportional, Stratified
from shoal.policies.mixers.proxy import answer
from shoal.policies.mixers.skillit import SkillIt, skills_graph
from shoal.policies.mixers.visits import BoundedMixing
from shoal.trainables.reference import Reference
from shoal.trainables.settings import Recipe

BATCH, VALIDATION, TEST = 16, 128, 256  # rows: of a step, of each group held out
FEW = 250  # rows of a group that has few: 16 kB
RECIPE = Recipe(learning_rate=0.02, final_rate=0.02, weight_decay=0.0)
SETTINGS: dict[str, dict[str, int | None]] = {  # group -> training rows, None: all of its 9,000 to 25,000
    "2 groups": {"code": None, "law": FEW},
    "3 groups": {"code": None, "maths": FEW, "reviews": FEW},
    "5 groups": {"code": None, "docs": None, "law": FEW, "maths": FEW, "reviews": FEW},
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
    "doremi in one run",
    "doge in one run",
)


@dataclass(frozen=True)
class Plan:
    """What a process works through: some seeds of one setting."""

    setting: str
    seeds: tuple[int, ...]
    steps: int
    corpus: str
    folder: str
    methods: tuple[str, ...] = METHODS


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


def published(steps: int, groups: int) -> Aioli:
    """Return the settings of the published runs of 2 and 3 groups, with rounds that suit this budget.

    There are none of 5 groups; those of 3 stand for them.
    """
    rate, memory = (0.2, 0.1) if groups == 2 else (0.1, 0.5)
    return Aioli(
        rate=rate,
        memory=memory,
        every=steps // 5,
        probe_share=0.2,
        smoothing=0.75,
        scale="total",
        noise=0.0,
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
        self.references: dict[int, Reference] = {}  # the stratified members by seed, once they are trained

    def make(self, mixers: Callable[[int], list[Mixer]]) -> list[list[ContextModel]]:
        """Return for each seed the members of its mixers."""
        table = [
            [Job(BoundedMixing(mixer), seed, self.references.get(seed)) for mixer in mixers(seed)]
            for seed in self.plan.seeds
        ]
        return [members(jobs, self.train, self.held_out, self.recipe, BATCH, self.plan.steps) for jobs in table]

    def results(self, mixer: Mixer, extra_steps: int = 0) -> list[Result]:
        """Return one run of a method a seed."""
        return self.results_of(lambda seed: mixer, extra_steps)

    def results_of(self, mixer: Callable[[int], Mixer], extra_steps: int = 0) -> list[Result]:
        made = self.make(lambda seed: [mixer(seed)])
        train_together([each for seed in made for each in seed], self.plan.steps)
        return [replace(result_of(seed[0]), extra_steps=extra_steps) for seed in made]

    def controls(self, alone: bool = False) -> dict[str, list[Result]]:
        """Return the mixtures that learn nothing; among the grid and the single groups, validation chooses.

        With `alone` that is the stratified one, which all others are held against.
        """
        count, steps = len(self.train), self.plan.steps
        if alone:
            made = self.make(lambda seed: [Stratified()])
            train_together([seed[0] for seed in made], steps)
            self.refer_to([seed[0] for seed in made])
            return {"stratified": [result_of(seed[0]) for seed in made]}

        def mixers(seed: int) -> list[Mixer]:
            rng = np.random.default_rng([1, seed])
            drawn = [rng.dirichlet(np.ones(count)) for _ in range(2)]
            fixed = [*np.eye(count), *grid(count), *drawn]
            return [Stratified(), Proportional(), *(Fixed(tuple(np.asarray(each).tolist())) for each in fixed)]

        made = self.make(mixers)
        train_together([each for seed in made for each in seed], steps)
        found: dict[str, list[Result]] = {}
        self.refer_to([seed[0] for seed in made])
        for seed in made:
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

    def refer_to(self, stratified: list[ContextModel]) -> None:
        """Keep copies of the stratified members as what DoReMi measures an excess over."""
        for seed, model in zip(self.plan.seeds, stratified, strict=True):
            self.references[seed] = Reference(
                partial(model.parts, copy.deepcopy(model.module).eval()), self.plan.steps
            )

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

    def measured_within(self, proxy: Mixer) -> list[ContextModel]:
        """Return trained members of DoReMi or DoGE, which are in no stack."""
        made = [seed[0] for seed in self.make(lambda seed: [proxy])]
        for model in made:
            model.train(self.plan.steps)
        return made

    def in_one_run(self, proxy: Mixer, extra_steps: int = 0) -> list[Result]:
        """Return runs that are trained at the proxy's answer after it, as in a run's file."""
        return [replace(result_of(model), extra_steps=extra_steps) for model in self.measured_within(proxy)]

    def proxied(self, proxy: Mixer, extra_steps: int) -> list[Result]:
        """Return runs at what a whole proxy run found."""
        found = {
            seed: Fixed(tuple(answer(model.mixing_state).tolist()))
            for seed, model in zip(self.plan.seeds, self.measured_within(proxy), strict=True)
        }
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
    online: dict[str, Callable[[], list[Result]]] = {
        "aioli": lambda: bench.results(ours(steps)),
        "aioli as published": lambda: bench.results(published(steps, len(bench.train))),
        "ado": lambda: bench.results(ADO(refit=steps // 5, skip=steps // 10)),
        "skill-it": bench.skill_it,
        "doremi": lambda: bench.proxied(DoReMi(proxy_share=1.0), 2 * steps),
        "doge": lambda: bench.proxied(DoGE(proxy_share=1.0), steps),
        "doremi in one run": lambda: bench.in_one_run(DoReMi(), steps),
        "doge in one run": lambda: bench.in_one_run(DoGE()),
    }
    # the stratified members are what all others stand beside, and DoReMi's references
    only = [method for method in plan.methods if method not in online] == ["stratified"]
    found = bench.controls(alone=only)
    return found | {method: run() for method, run in online.items() if method in plan.methods}
