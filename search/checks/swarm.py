"""What must hold for a search for a mixture: `kind: mixture` and the section `swarm:`."""

import importlib.util

from shoal.search.checks.declared import without_losses, without_rows
from shoal.search.checks.mixing import check_table
from shoal.search.config.run import Run
from shoal.search.config.sections import Population
from shoal.search.config.swarm import Swarm

FEWEST_FOR_TREES = 64  # runs; boosted trees cannot be fitted to fewer


def check_swarm(run: Run) -> str:
    """Return what is wrong with a search for a mixture, as far as that is known without the corpus."""
    swarm, groups = run.swarm or Swarm(), len(run.data.groups)
    if problem := without_rows(run, "kind: mixture") or without_losses(run, "kind: mixture", network=True):
        return problem
    if run.objective and run.trainable in ("decoder", "causal_lm"):
        return "objective: kind mixture compares mixtures by the next token's loss; leave it out"
    if groups < 2:
        return f"data.groups: a mixture needs at least 2 groups, got {groups}"
    if swarm.runs < groups + 2:
        return (
            f"swarm.runs: a law of {groups} groups has {groups + 1} parameters and needs at least {groups + 2} "
            f"runs, got {swarm.runs}"
        )
    if swarm.law == "boosted_trees" and swarm.runs < FEWEST_FOR_TREES:
        return (
            f"swarm.runs: boosted trees need {FEWEST_FOR_TREES} runs, since a leaf holds 20 and some stop the "
            f"training, got {swarm.runs}"
        )
    if swarm.law == "boosted_trees" and importlib.util.find_spec("lightgbm") is None:
        return "swarm.law: boosted_trees needs LightGBM: pip install 'shoal[boosting]'"
    if run.trainable == "causal_lm" and swarm.model != Swarm().model:
        return "swarm.model: small runs of a causal_lm train the run's own model, for swarm.steps; leave it out"
    if run.mixing is not None or run.hyperparameters or run.schedule:
        return "kind: mixture searches fixed mixtures alone: leave out mixing, hyperparameters and schedule"
    if run.population != Population() or run.starts:
        return "population: a search for a mixture makes its own of the swarm and the controls; leave it out"
    return check_table("swarm.prior", swarm.prior, run.data.groups)
