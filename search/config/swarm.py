"""The section `swarm:` of a run of kind `mixture`: small runs at many mixtures, and the law fitted to them."""

from typing import Annotated, Literal

from pydantic import Field

from shoal.search.config.mixing import ByGroup
from shoal.search.config.sections import Model
from shoal.search.config.sections_of import Count, HyperparameterValues, Real, Settings, WholeNumber


class Swarm(Settings):
    """How a fixed mixture is searched for; the run's `model` and `training` are for the confirming run."""

    runs: Count = 24  # small runs, each at a mixture of its own
    steps: Count = 100  # steps of each small run
    model: Model = Model(layers=2, heads=2, width=32)  # decoder of the small runs
    settings: HyperparameterValues = Field(default_factory=dict)  # constants of your own class in small runs
    design: Literal["dirichlet", "optuna"] = "dirichlet"  # how the mixtures of the small runs are drawn
    # the law that is fitted to the losses of the small runs
    law: Literal["log_linear", "ridge", "boosted_trees"] = "log_linear"
    prior: ByGroup = Field(default_factory=dict)  # centre of the drawn mixtures; by default equal shares
    strength: Annotated[Real, Field(ge=0)] = 0.0  # nats; a larger one keeps the proposal nearer to the prior
    epochs: Annotated[Real, Field(gt=0)] | None = None  # most passes over a group in the confirming run
    draws: Annotated[WholeNumber, Field(ge=10)] = (
        50  # resamples of the small runs, which give the proposal's interval
    )
    repeats: Count = 2  # seeds of each mixture in the confirming run
