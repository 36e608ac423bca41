"""A run of kind `mixture`: a swarm of small runs, a law fitted to their losses, its proposal, a confirming run.

The small runs are the members of one population without exploits, each at a mixture of its own, and so is the
confirming run, in which the proposal stands beside the controls. Both are whole runs below the run's directory:
they resume, and have reports of their own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from shoal.cluster import lease
from shoal.cluster.storage import Store
from shoal.policies.arrays import Vector
from shoal.policies.laws.loglinear import fit_law, ridge
from shoal.policies.laws.optimum import best_mixture
from shoal.policies.laws.regmix import draw_mixtures, proposals, propose
from shoal.policies.mixing import normalise
from shoal.policies.ranks import spearman
from shoal.policies.space import Float
from shoal.search.checks.run import problems
from shoal.search.checks.swarm import FEWEST_FOR_TREES
from shoal.search.config.kinds import NO_EXPLOIT
from shoal.search.config.mixing import POLICY, MixingSection
from shoal.search.config.run import Run
from shoal.search.config.sections import Cluster, Population, Start, Training
from shoal.search.config.swarm import Swarm
from shoal.search.corpus.build import load_corpus
from shoal.search.driver.start import spread
from shoal.search.errors import InputError
from shoal.search.records import directory
from shoal.search.records.tables import METRICS, TESTS, read_table_rows
from shoal.search.runs import population as running
from shoal.search.runs.boosting import boosted

PROPOSAL = "proposal.json"
CANDIDATES, KEPT = 20_000, 100  # a regression scores so many mixtures, and proposes the mean of the best 100


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


def settings(run: Run) -> Swarm:
    return run.swarm or Swarm()


def most(run: Run, rows: dict[str, int]) -> Vector:
    """Return the largest share of each group that keeps to the allowed passes over it."""
    epochs = settings(run).epochs
    trained = run.training.steps * run.training.batch
    if epochs is None:
        return np.ones(len(rows))
    return np.minimum(np.array([epochs * count / trained for count in rows.values()]), 1.0)


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
    places = {"proposal": f"{store.uri}/{PROPOSAL}", "report": f"{confirming.directory}/report.html"}
    for name, place in places.items():
        console.print(f"  {name:14}{place}", highlight=False, soft_wrap=True)


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


def prior(run: Run) -> Vector:
    given = settings(run).prior
    return normalise([given.get(group, 0.0) if given else 1.0 for group in run.data.groups])


def with_small_model(run: Run) -> Run:
    """Return the run with the model of the small runs in place of its own."""
    given = settings(run)
    return run.model_copy(update={"model": given.model, "settings": run.settings | given.settings})


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
    population = Population(members=len(starts), interval=short_interval(steps), exploit=NO_EXPLOIT)
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


def losses_of(run: Run) -> Vector:
    """Return each member's last validation loss of each group, (members, groups); NaN if it has failed."""
    rows = sorted(read_table_rows(Store(run.directory), METRICS), key=lambda row: (row["round"], row["member"]))
    last = rows[-run.population.members :]
    # a member that failed before the last round has no loss there
    return np.array([[row.get(f"loss_{group}") for group in run.data.groups] for row in last], dtype=np.float64)


def proposal(run: Run, rows: dict[str, int], swarm: Run) -> dict[str, Any]:
    """Fit the law; return its proposed mixture, with an interval, beside the controls."""
    given, caps = settings(run), most(run, rows)
    mixtures = np.array([start.hyperparameters["mixing"]["proportions"] for start in swarm.starts])
    losses = losses_of(swarm)
    sound = np.flatnonzero(np.all(np.isfinite(losses), axis=1))
    mixtures, losses = mixtures[sound], losses[sound]
    needed = FEWEST_FOR_TREES if given.law == "boosted_trees" else len(rows) + 2
    if len(losses) < needed:
        raise InputError(
            f"swarm.runs: only {len(sound)} of {given.runs} runs went well, and {needed} are "
            f"needed; lower the learning rate, and begin again."
        )
    rng = np.random.default_rng([run.seed, 3])
    fitted = predictor(given, mixtures, losses)
    again = proposals(lambda x, y: proposed(run, caps, x, y), mixtures, losses, given.draws, rng)
    low, high = np.quantile(again, (0.025, 0.975), axis=0)
    alone = np.eye(len(rows))
    controls = {
        "stratified": normalise(np.ones(len(rows))),
        "proportional": normalise(list(rows.values())),
        "best small run": mixtures[losses.mean(axis=1).argmin()],
        "best single group": alone[fitted(alone).mean(axis=1).argmin()],
        "random": rng.dirichlet(np.ones(len(rows))),
    }
    beside = {"proposal": proposed(run, caps, mixtures, losses), **controls}
    return {
        "groups": list(rows),
        "low": low.tolist(),
        "high": high.tolist(),
        "held_out_correlation": held_out_correlation(given, mixtures, losses),
        "runs": len(losses),
        "extra_steps": given.runs * given.steps,
        "beside": {
            name: {"mixture": each.tolist(), "predicted": float(fitted(each[None]).mean())}
            for name, each in beside.items()
        },
    }


def predictor(given: Swarm, mixtures: Vector, losses: Vector) -> Callable[[Vector], Vector]:
    """Return the fitted function from mixtures to losses (mixtures, groups)."""
    if given.law == "log_linear":
        return fit_law(mixtures, losses).losses
    return ridge(mixtures, losses) if given.law == "ridge" else boosted(mixtures, losses)


def proposed(run: Run, caps: Vector, mixtures: Vector, losses: Vector) -> Vector:
    given = settings(run)
    if given.law == "log_linear":
        return best_mixture(fit_law(mixtures, losses), prior(run), given.strength, caps)
    predict = predictor(given, mixtures, losses)
    # each resample of the runs gets the same candidates, so the interval does not measure their chance
    candidates = np.random.default_rng([run.seed, 4]).dirichlet(len(caps) * prior(run) + 1e-3, CANDIDATES)
    allowed = candidates[np.all(candidates <= caps + 1e-9, axis=1)]
    if allowed.shape[0] < KEPT:
        raise InputError("swarm.epochs: hardly any mixture keeps to it; allow more, or use law: log_linear.")
    return propose(lambda each: predict(each).mean(axis=1), allowed, KEPT)


def held_out_correlation(given: Swarm, mixtures: Vector, losses: Vector, folds: int = 5) -> float | None:
    """Return how well the law ranks runs that it was not fitted to; None if too few are left for a fit."""
    told = np.arange(len(losses)) % folds
    if (told != 0).sum() < mixtures.shape[1] + 2:
        return None
    guessed = np.zeros(len(losses))
    for fold in range(folds):
        held = told == fold
        predict = predictor(given, mixtures[~held], losses[~held])
        guessed[held] = predict(mixtures[held]).mean(axis=1)
    return float(spearman(guessed, losses.mean(axis=1)))


def confirm(found: dict[str, Any], run: Run, repeats: int) -> None:
    """Add what the confirming run measured: mean validation and test losses over the seeds that succeeded.

    A mixture without such a seed has neither.
    """
    validation = losses_of(run).mean(axis=1).reshape(-1, repeats)
    tests = Store(run.directory).read_json(TESTS)
    for place, each in enumerate(found["beside"].values()):
        told = [tests.get(str(place * repeats + seed)) or {} for seed in range(repeats)]
        groups = found["groups"]
        of_seeds = np.array([[losses.get(group) for group in groups] for losses in told], dtype=np.float64)
        sound = np.isfinite(validation[place]) & np.isfinite(of_seeds).all(axis=1)
        each["seeds"] = int(sound.sum())
        each["validation"] = float(validation[place][sound].mean()) if sound.any() else None
        means = of_seeds[sound].mean(axis=0).tolist() if sound.any() else [None] * len(groups)
        each["test"] = dict(zip(groups, means, strict=True))


def proposal_table(found: dict[str, Any]) -> Table:
    """Return the proposal and the controls, each with its mixture, and what was predicted and measured."""
    drawn = Table("mixture", *found["groups"], "predicted", "validation", "test", box=None, pad_edge=False)
    for name, each in found["beside"].items():
        shares = [f"{share:.3f}" for share in each["mixture"]]
        measured = ["failed", "failed"]
        if each["seeds"]:
            test = float(np.mean(list(each["test"].values())))
            measured = [f"{each['validation']:.4f}", f"{test:.4f}"]
        drawn.add_row(name, *shares, f"{each['predicted']:.4f}", *measured)
    ends = [f"{low:.2f}-{high:.2f}" for low, high in zip(found["low"], found["high"], strict=True)]
    drawn.add_row("its interval", *ends, "", "", "")
    return drawn
