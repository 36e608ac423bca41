"""The section `swarm:` of a run of kind `mixture`: small runs at many mixtures, and the law fitted to them."""

import importlib.util
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from search.kinds import Count, Settings
from search.mixture.mixing import ByGroup
from search.mixture.mixing_checks import check_table
from search.sections import Model, Population

if TYPE_CHECKING:
    from search.config import Run

FEWEST = 64  # runs that boosted trees are fitted to


class Swarm(Settings):
    """How a static mixture is searched for; `model` and `training` of the run are the confirming one's."""

    runs: Count = 24
    steps: Count = 100  # of each small run
    model: Model = Model(layers=2, heads=2, width=32)  # of the small runs
    design: Literal["dirichlet", "optuna"] = "dirichlet"  # which mixtures they have
    law: Literal["log_linear", "ridge", "boosted_trees"] = "log_linear"
    prior: ByGroup = Field(default_factory=dict)  # what mixtures are drawn around; equal shares by default
    strength: Annotated[float, Field(ge=0)] = 0.0  # by which the proposal is held to the prior, in nats
    epochs: Annotated[float, Field(gt=0)] | None = None  # most passes over a group in the confirming run
    draws: Annotated[int, Field(ge=10)] = 50  # of other samples of the runs, for the interval
    repeats: Count = 2  # seeds of each mixture in the confirming run


def check_swarm(run: "Run") -> str:
    """Return what is wrong with a search for a mixture, as far as that is known without the corpus."""
    if run.kind != "mixture":
        return "swarm: belongs to a run of `kind: mixture`" if run.swarm is not None else ""
    swarm, groups = run.swarm or Swarm(), len(run.data.groups)
    if not run.reads_text:
        return f"kind: mixture needs groups of text, so `trainable: decoder`, got {run.trainable}"
    if groups < 2:
        return f"data.groups: a mixture needs at least 2 groups, got {groups}"
    if swarm.runs < groups + 2:
        return (
            f"swarm.runs: a law of {groups} groups has {groups + 1} parameters and needs at least {groups + 2} "
            f"runs, got {swarm.runs}"
        )
    if swarm.law == "boosted_trees" and swarm.runs < FEWEST:
        return (
            f"swarm.runs: boosted trees need {FEWEST} runs, since a leaf holds 20 and some stop the training, "
            f"got {swarm.runs}"
        )
    if swarm.law == "boosted_trees" and importlib.util.find_spec("lightgbm") is None:
        return "swarm.law: boosted_trees needs LightGBM: pip install 'shoal[boosting]'"
    if run.mixing is not None or run.hyperparameters or run.schedule:
        return "kind: mixture searches fixed mixtures alone: leave out mixing, hyperparameters and schedule"
    if run.population != Population() or run.starts:
        return "population: a search for a mixture makes its own of the swarm and the controls; leave it out"
    return check_table("swarm.prior", swarm.prior, run.data.groups)
