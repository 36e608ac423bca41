"""The proposal of a run of kind `mixture`: the law that is fitted to its small runs, and what confirms it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from rich.table import Table

from shoal.cluster.storage import Store
from shoal.policies.arrays import Vector
from shoal.policies.laws.loglinear import fit_law, ridge
from shoal.policies.laws.optimum import best_mixture
from shoal.policies.laws.regmix import proposals, propose
from shoal.policies.mixing import dilution, normalise
from shoal.policies.ranks import spearman
from shoal.search.checks.swarm import FEWEST_FOR_TREES
from shoal.search.config.run import Run
from shoal.search.config.swarm import Swarm
from shoal.search.errors import InputError
from shoal.search.records.tables import METRICS, TESTS, read_table_rows
from shoal.search.runs.boosting import boosted

CANDIDATES, KEPT = 20_000, 100  # a regression scores so many mixtures, and proposes the mean of the best 100


def settings(run: Run) -> Swarm:
    return run.swarm or Swarm()


def most(run: Run, rows: dict[str, int]) -> Vector:
    """Return the largest share of each group that keeps to the allowed passes over it."""
    epochs = settings(run).epochs
    trained = run.training.steps * run.training.batch
    if epochs is None:
        return np.ones(len(rows))
    return np.minimum(np.array([epochs * count / trained for count in rows.values()]), 1.0)


def prior(run: Run) -> Vector:
    given = settings(run).prior
    return normalise([given.get(group, 0.0) if given else 1.0 for group in run.data.groups])


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
    chosen = proposed(run, caps, mixtures, losses)
    beside = {"proposal": chosen, **controls}
    return {
        "groups": list(rows),
        "low": low.tolist(),
        "high": high.tolist(),
        "dilution": single_groups(run, chosen, mixtures, losses),
        "held_out_correlation": held_out_correlation(given, mixtures, losses),
        "runs": len(losses),
        "extra_steps": given.runs * given.steps,
        "beside": {
            name: {"mixture": each.tolist(), "predicted": float(fitted(each[None]).mean())}
            for name, each in beside.items()
        },
    }


def single_groups(run: Run, chosen: Vector, mixtures: Vector, losses: Vector) -> dict[str, Any]:
    """Say of each group's loss whether one group alone would have been better than the proposal, by the law.

    `over` is by how much the proposal's loss is above that of the best single group, in nats, with an interval
    over other draws of the small runs, which see the same proposal.
    """
    given, names, alone = settings(run), list(run.data.groups), np.eye(len(chosen))

    def told(drawn: Vector, seen: Vector) -> Vector:
        fitted = predictor(given, drawn, seen)
        return dilution(fitted(chosen[None])[0], fitted(alone))

    best = predictor(given, mixtures, losses)(alone).argmin(axis=0)
    again = proposals(told, mixtures, losses, given.draws, np.random.default_rng([run.seed, 5]))
    low, high = np.quantile(again, (0.025, 0.975), axis=0)
    columns = zip(names, best, told(mixtures, losses), low, high, strict=True)
    return {
        name: {"best_alone": names[at], "over": float(over), "low": float(least), "high": float(most_)}
        for name, at, over, least, most_ in columns
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


def dilution_table(found: dict[str, Any]) -> Table:
    """Return of each group's loss how the proposal stands to the best single group, by the law, in nats."""
    drawn = Table("loss of", "best single group", "the proposal is above it by", "", box=None, pad_edge=False)
    for name, told in found["dilution"].items():
        ends = f"{told['low']:+.3f} to {told['high']:+.3f}"
        drawn.add_row(name, told["best_alone"], f"{told['over']:+.3f}", ends)
    return drawn


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
