"""Students picked out of trained super-networks without training them again."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
import torch

from cluster.batch import map_tasks
from cluster.session import capacity
from policies.pareto import choose, front
from search.config import Run
from search.distill.costs import cost_of, spaces_of
from search.distill.members import open_teacher, trained
from search.members import HeldOut
from trainables.distill.cost import latency
from trainables.distill.spaces import Shape, Subnet, SubSpace

WHOLE = 512  # networks up to which a space is searched whole
GENERATION = 32  # networks that NSGA-II proposes at once
Row = dict[str, Any]
Score = Callable[[Sequence[Subnet]], list[Row]]


def score_part(shared: dict[str, Any], subnets: Sequence[Subnet]) -> list[Row]:
    """Score some sub-networks of one space; called in a Ray task."""
    run = Run.model_validate(shared["run"])
    torch.set_num_threads(1)
    taught = open_teacher(run, "cpu")
    member = trained(run, shared["space"], taught, shared["held_out"], shared["weights"])
    rows = []
    tokens = torch.zeros((1, run.data.sequence_length), dtype=torch.long)
    for subnet, loss in zip(subnets, member.losses(subnets), strict=True):
        row = {"subnet": subnet, "loss": loss, **cost_of(run, taught[1].shape, subnet)}
        if run.distilling.search.objective == "latency":
            row["latency"] = latency(member.transformer, subnet, tokens)
        rows.append(row)
    return rows


def scorer(run: Run, space: str, weights: Any, held_out: HeldOut) -> Score:
    """Return the function that scores sub-networks of a space as one batch over the cluster's CPUs."""
    shared = {"run": run.model_dump(mode="json"), "space": space, "weights": weights, "held_out": held_out}
    tasks = max(1, int(capacity().get("CPU", 1)))

    def score(subnets: Sequence[Subnet]) -> list[Row]:
        each = math.ceil(len(subnets) / tasks)
        parts = [subnets[first : first + each] for first in range(0, len(subnets), each)]
        return [row | {"space": space} for part in map_tasks(score_part, shared, parts) for row in part]

    return score


def search_space(
    space: SubSpace, score: Score, objective: str, method: str, evaluations: int, seed: int
) -> list[Row]:
    """Return the scored networks of a space: all, or those that NSGA-II (Deb et al., 2002) came to."""
    if method == "all":
        return score(list(dict.fromkeys(space)))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(population_size=GENERATION, seed=seed)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    for share in (0, 1):  # both ends are known to matter
        study.enqueue_trial({name: share * (len(values) - 1) for name, values in space.axes.items()})
    known: dict[Subnet, Row] = {}
    for first in range(0, evaluations, GENERATION):
        trials = [study.ask() for _ in range(min(GENERATION, evaluations - first))]
        subnets = [proposed(space, trial) for trial in trials]
        new = [subnet for subnet in dict.fromkeys(subnets) if subnet not in known]
        known |= {row["subnet"]: row for row in (score(new) if new else [])}
        for trial, subnet in zip(trials, subnets, strict=True):
            study.tell(trial, [known[subnet]["loss"], known[subnet][objective]])
    return list(known.values())


def proposed(space: SubSpace, trial: optuna.Trial) -> Subnet:
    return space.at(tuple(trial.suggest_int(name, 0, len(values) - 1) for name, values in space.axes.items()))


def search_students(run: Run, shape: Shape, weights: dict[str, Any], held_out: HeldOut) -> list[Row]:
    """Score every space's networks and mark the front of all and the best within each budget.

    A row holds space, subnet, loss on validation rows, costs, `name` where it is on the front, and the
    `budgets` that it is the best within.
    """
    chosen, rows = run.distilling.search, []
    for name, space in spaces_of(run, shape).items():
        method = chosen.method or ("all" if len(space) <= WHOLE else "nsga2")
        score = scorer(run, name, weights[name], held_out)
        rows += search_space(space, score, chosen.objective, method, chosen.evaluations, run.seed)
    scores, costs = [-row["loss"] for row in rows], [row[chosen.objective] for row in rows]
    kept = np.flatnonzero(front(scores, costs))
    counts: dict[str, int] = {}
    for place in sorted(kept.tolist(), key=lambda place: costs[place]):
        counts[rows[place]["space"]] = counts.get(rows[place]["space"], 0) + 1
        rows[place]["name"] = f"{rows[place]['space']}-{counts[rows[place]['space']]}"
    for budget in chosen.budgets:
        rows[choose(scores, costs, budget)].setdefault("budgets", []).append(budget)
    return rows
