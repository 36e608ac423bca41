"""Students are picked out of trained super-networks, without training them again."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
import torch
from torch import nn

from shoal.cluster.session import capacity
from shoal.cluster.tasks import map_tasks
from shoal.policies.pareto import choose, front
from shoal.search.config.run import Run
from shoal.search.corpus.text import HeldOut
from shoal.search.distill.costs import cost_of, spaces_of
from shoal.search.distill.members import trained
from shoal.search.distill.proxy import proxy_rows
from shoal.search.distill.teacher import open_teacher
from shoal.trainables.arrays import to_arrays
from shoal.trainables.distill.cost import latency
from shoal.trainables.distill.proxy import Tuning, accuracy, tune_together
from shoal.trainables.distill.spaces import ElasticShape, Subnet, SubSpace
from shoal.trainables.distill.supernet import SuperNetwork

EXHAUSTIVE_UP_TO = 512  # a space of at most so many networks is searched whole
GENERATION = 32  # networks that NSGA-II proposes at once
ScoredNetwork = dict[str, Any]
Score = Callable[[Sequence[Subnet]], list[ScoredNetwork]]


def open_member(shared: dict[str, Any]) -> tuple[Run, SuperNetwork]:
    """Return a trained super-network inside a Ray task."""
    run: Run = shared["run"]
    torch.set_num_threads(1)
    device = "cuda" if run.cluster.gpus_per_worker else "cpu"
    taught = open_teacher(run, device)
    return run, trained(run, shared["space"], taught, shared["held_out"], shared["weights"], device)


def score_part(shared: dict[str, Any], subnets: Sequence[Subnet]) -> list[ScoredNetwork]:
    """Score some sub-networks of one space; called in a Ray task."""
    run, member = open_member(shared)
    shape = member.origin.shape
    rows: list[ScoredNetwork] = [
        {"subnet": subnet, "loss": loss, **cost_of(run, shape, subnet)}
        for subnet, loss in zip(subnets, member.losses(subnets), strict=True)
    ]
    if shared["tuned"] is not None:
        tuned, head = member.transformer, nn.Linear(*shared["tuned"]["sizes"]).to(member.device)
        tuned.load_state_dict(as_tensors(shared["tuned"]["weights"]))
        head.load_state_dict(as_tensors(shared["tuned"]["head"]))
        for row in rows:
            row["accuracy"] = accuracy(tuned, head, shared["proxy"][1], row["subnet"])
    return rows


def tune_space(shared: dict[str, Any], seed: int) -> dict[str, Any]:
    """Tune all networks of a space to the proxy task at once; called in a Ray task."""
    run, member = open_member(shared)
    proxy = run.distilling.search.proxy
    assert proxy is not None
    tuning = Tuning(proxy.steps, proxy.batch, proxy.learning_rate)
    head = tune_together(member.transformer, member.space, shared["proxy"][0], tuning, seed)
    return {
        "weights": to_arrays(member.transformer.state_dict()),
        "head": to_arrays(head.state_dict()),
        "sizes": (head.in_features, head.out_features),
    }


def measure_latencies(shared: dict[str, Any], subnets: Sequence[Subnet]) -> list[float]:
    """Measure one network after another, in ms for one row; called in a Ray task that runs alone."""
    run, member = open_member(shared)
    tokens = torch.zeros((1, run.data.sequence_length), dtype=torch.long, device=member.device)
    return [latency(member.transformer, subnet, tokens) for subnet in subnets]


def as_tensors(arrays: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}


def scorer(run: Run, space: str, weights: Any, held_out: HeldOut) -> Score:
    """Return the function that scores sub-networks of a space as one batch over the cluster's CPUs or GPUs."""
    gpus, has = run.cluster.gpus_per_worker, capacity()
    tasks = max(1, int(has.get("GPU", 0.0) / gpus if gpus else has.get("CPU", 1.0)))
    shared = {"run": run, "space": space, "weights": weights, "held_out": held_out}
    shared |= {"proxy": proxy_rows(run), "tuned": None}
    if shared["proxy"] is not None:
        shared["tuned"] = map_tasks(tune_space, shared, [run.seed], gpus)[0]

    def score(subnets: Sequence[Subnet]) -> list[ScoredNetwork]:
        each = math.ceil(len(subnets) / tasks)
        parts = [subnets[first : first + each] for first in range(0, len(subnets), each)]
        scored = map_tasks(score_part, shared, parts, gpus)
        rows = [row | {"space": space} for part in scored for row in part]
        if run.distilling.search.objective == "latency":
            times = map_tasks(measure_latencies, shared, [subnets], gpus)[0]
            rows = [row | {"latency": each} for row, each in zip(rows, times, strict=True)]
        return rows

    return score


def worth(row: ScoredNetwork) -> float:
    """Return the value by which networks are ranked, higher is better: accuracy on the proxy task, or -loss."""
    found: float = row["accuracy"] if "accuracy" in row else -row["loss"]
    return found


def search_space(
    space: SubSpace, score: Score, objective: str, method: str, evaluations: int, seed: int
) -> list[ScoredNetwork]:
    """Return the scored networks of a space: all, or those that NSGA-II (Deb et al., 2002) proposed."""
    if method == "all":
        return score(list(dict.fromkeys(space)))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(population_size=GENERATION, seed=seed)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    for share in (0, 1):  # the smallest and the largest network are always tried
        study.enqueue_trial({name: share * (len(values) - 1) for name, values in space.axes.items()})
    known: dict[Subnet, ScoredNetwork] = {}
    for first in range(0, evaluations, GENERATION):
        trials = [study.ask() for _ in range(min(GENERATION, evaluations - first))]
        subnets = [proposed_subnet(space, trial) for trial in trials]
        new = [subnet for subnet in dict.fromkeys(subnets) if subnet not in known]
        known |= {row["subnet"]: row for row in (score(new) if new else [])}
        for trial, subnet in zip(trials, subnets, strict=True):
            study.tell(trial, [-worth(known[subnet]), known[subnet][objective]])
    return list(known.values())


def proposed_subnet(space: SubSpace, trial: optuna.Trial) -> Subnet:
    return space.at(tuple(trial.suggest_int(name, 0, len(values) - 1) for name, values in space.axes.items()))


def search_students(
    run: Run, shape: ElasticShape, weights: dict[str, Any], held_out: HeldOut
) -> list[ScoredNetwork]:
    """Score every space's networks, and mark the Pareto front of all and the best within each budget.

    A row holds space, subnet, loss on validation rows, costs, the `accuracy` on a proxy task if there is one,
    a `name` if it is on the front, and the `budgets` within which it is the best.
    """
    chosen, rows = run.distilling.search, []
    for name, space in spaces_of(run, shape).items():
        method = chosen.method or ("all" if len(space) <= EXHAUSTIVE_UP_TO else "nsga2")
        score = scorer(run, name, weights[name], held_out)
        rows += search_space(space, score, chosen.objective, method, chosen.evaluations, run.seed)
    scores, costs = [worth(row) for row in rows], [row[chosen.objective] for row in rows]
    kept = np.flatnonzero(front(scores, costs))
    counts: dict[str, int] = {}
    for place in sorted(kept.tolist(), key=lambda place: costs[place]):
        counts[rows[place]["space"]] = counts.get(rows[place]["space"], 0) + 1
        rows[place]["name"] = f"{rows[place]['space']}-{counts[rows[place]['space']]}"
    for budget in (budget for budget in chosen.budgets if budget >= min(costs)):
        rows[choose(scores, costs, budget)].setdefault("budgets", []).append(budget)
    return rows


STUDENTS, SCORED = "students.json", "subnets.parquet"
