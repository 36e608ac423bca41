"""A run of kind `mixture`: a swarm of small runs, a law fitted to their losses, its proposal, a confirming run.

The small runs are the members of one population without exploits, each at a mixture of its own, and so is the
confirming run, in which the proposal stands beside the controls. Both are whole runs below the run's directory:
they resume, and have reports of their own.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from rich.console import Console

from shoal.cluster import lease
from shoal.cluster.storage import Store
from shoal.policies.arrays import Vector
from shoal.policies.laws.regmix import draw_mixtures
from shoal.policies.mixing import normalise
from shoal.policies.space import Float
from shoal.search.checks.run import problems
from shoal.search.config.kinds import no_exploit
from shoal.search.config.mixing import POLICY, MixingSection
from shoal.search.config.run import Run
from shoal.search.config.sections import Cluster, Population, Start, Training
from shoal.search.corpus.build import load_corpus
from shoal.search.driver.start import spread
from shoal.search.errors import InputError
from shoal.search.records import directory
from shoal.search.runs import population as running
from shoal.search.runs.closing import print_next
from shoal.search.runs.proposal import (
    confirm,
    dilution_table,
    most,
    prior,
    proposal,
    proposal_table,
    settings,
)

PROPOSAL = "proposal.json"


def run_new(run: Run, console: Console, baseline: bool = False, resume: str = "never") -> None:
    """Search a mixture, or as `resume` says go on with the search that the directory already holds."""
    if baseline:
        raise InputError("--baseline: a run of kind `mixture` always has its controls beside it.")
    if resume == "must" or (resume == "auto" and directory.holds_run(run.directory)):
        run_on(directory.same_run(run).directory, console)
        return
    directory.refuse_existing(run)
    run, rows = prepare_search(run, console, new=True)
    directory.create(run)
    search(run, rows, console)


def run_on(path: str, console: Console) -> None:
    """Go on with a search where it stopped: in the swarm, or in the confirming run."""
    run, store = directory.going_on(path)
    if directory.summary(store).get("status") == "done":
        raise InputError(f"{path} is finished: see {store.uri}/{PROPOSAL}.")
    search(*prepare_search(run, console), console)


def prepare_search(run: Run, console: Console, new: bool = False) -> tuple[Run, dict[str, int]]:
    """Build the corpus if it is not there; return the run with these rows, and each group's number of them.

    Raises InputError if no mixture keeps to `swarm.epochs` with these numbers.
    """
    run = running.prepare_run(run, console, new)
    rows = {name: group.splits["train"].rows for name, group in load_corpus(run.data).groups.items()}
    needed = run.training.steps * run.training.batch
    if (caps := most(run, rows)).sum() < 1:
        raise InputError(
            f"swarm.epochs: {settings(run).epochs:g} passes over all groups are {int(caps.sum() * needed)} "
            f"rows, but the confirming run trains {needed}; allow more or train less."
        )
    return run, rows


def search(run: Run, rows: dict[str, int], console: Console) -> None:
    """Carry out what is left of the search, and print its result."""
    with lease.holding(run.directory) as store, running.well_recorded(run, partial(record_status, store)):
        record_status(store, "running")
        small = with_small_model(run)
        swarm = as_population(small, "swarm", settings(run).steps, 1, design(run))
        carry_out(swarm, console)
        found = proposal(run, rows, swarm)
        if found["runs"] < settings(run).runs:
            console.print(
                f"only {found['runs']} of {settings(run).runs} runs went well; the others are left out",
                highlight=False,
            )
        store.write_json(PROPOSAL, found)
        mixtures = [np.array(each["mixture"]) for each in found["beside"].values()]
        repeats = settings(run).repeats
        confirming = as_population(run, "confirm", run.training.steps, repeats, mixtures)
        carry_out(confirming, console)
        confirm(found, confirming, repeats)
        store.write_json(PROPOSAL, found)
        record_status(store, "done")
    console.print(proposal_table(found))
    console.print(dilution_table(found))
    places = {"proposal": f"{store.uri}/{PROPOSAL}", "report": f"{confirming.directory}/report.html"}
    for name, place in places.items():
        console.print(f"  {name:14}{place}", highlight=False, soft_wrap=True)
    print_next(confirming, console)


def record_status(store: Store, status: str) -> None:
    store.write_json(directory.SUMMARY, {"status": status})


def carry_out(run: Run, console: Console) -> None:
    if directory.summary(Store(run.directory)).get("status") != "done":
        running.train(run, [run], console)


def design(run: Run) -> list[Vector]:
    """Return the mixtures of the small runs: Dirichlet draws around the prior, or Optuna's Sobol points."""
    swarm = settings(run)
    if swarm.design == "dirichlet":
        return list(draw_mixtures(prior(run), swarm.runs, np.random.default_rng([run.seed, 2])))
    space = {group: Float(1e-6, 1.0) for group in run.data.groups}
    # -log of uniform draws is exponential; divided by their sum, such draws are uniform on the simplex
    drawn = [list(state.hyperparameters.values()) for state in spread(space, swarm.runs, run.seed)]
    return [normalise(-np.log(np.array(values) * (1 - 1e-6))) for values in drawn]


def with_small_model(run: Run) -> Run:
    """Return the run with the model of the small runs in place of its own, which a pretrained one keeps."""
    return run.model_copy(update={"model": run.small_model, "settings": run.settings | settings(run).settings})


def as_population(run: Run, part: str, steps: int, repeats: int, mixtures: Sequence[Vector]) -> Run:
    """Return the population that trains each mixture with `repeats` seeds."""
    equal = POLICY["fixed"](kind="fixed", proportions=dict.fromkeys(run.data.groups, 1 / len(run.data.groups)))
    starts = [
        Start(hyperparameters={"mixing": {"proportions": mixture.tolist()}}, seed=seed)
        for mixture in mixtures
        for seed in range(repeats)
    ]
    training: Training = run.training.model_copy(
        update={"steps": steps, "warmup": min(run.training.warmup, steps // 4)}
    )
    population = Population(members=len(starts), interval=short_interval(steps), exploit=no_exploit())
    made = run.model_copy(
        update={
            "kind": "population",
            "swarm": None,
            "name": f"{run.name}-{part}",
            "directory": f"{run.directory}/{part}",
            "training": training,
            "mixing": MixingSection(policy=equal),
            "starts": starts,
            "population": population,
            "cluster": with_members_each(run.cluster, len(starts)),
        }
    )
    if wrong := problems(made):
        raise InputError("\n".join(f"{made.name}: {problem}" for problem in wrong))
    return made


def with_members_each(cluster: Cluster, members: int) -> Cluster:
    """Return the cluster with fewer broods if needed, so that each worker has a member.

    With as many broods as members each small run is a Tune trial with a worker of its own.
    """
    hosts = max((cluster.workers_per_brood or 1) // cluster.workers_per_member, 1)
    broods = max(min(cluster.broods, members // hosts), 1)
    least = None if cluster.broods_least is None else min(cluster.broods_least, broods)
    return cluster.model_copy(update={"broods": broods, "broods_least": least})


def short_interval(steps: int) -> int:
    """Return an interval that cuts a run into at most five parts: stopped, it loses one of them."""
    return next(steps // parts for parts in (5, 4, 3, 2, 1) if steps % parts == 0)
