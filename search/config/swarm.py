"""The section `swarm:` of a run of kind `mixture`: small runs at many mixtures, and the law fitted to them."""

from typing import Annotated, Literal

from pydantic import Field

from shoal.search.config.mixing import ByGroup
from shoal.search.config.sections import Model
from shoal.search.config.sections_of import Count, Real, Settings, Whole


class Swarm(Settings):
    """How a static mixture is searched for; `model` and `training` of the run are the confirming one's."""

    runs: Count = 24
    steps: Count = 100  # of each small run
    model: Model = Model(layers=2, heads=2, width=32)  # of the small runs
    design: Literal["dirichlet", "optuna"] = "dirichlet"  # which mixtures they have
    law: Literal["log_linear", "ridge", "boosted_trees"] = "log_linear"
    prior: ByGroup = Field(default_factory=dict)  # what mixtures are drawn around; equal shares by default
    strength: Annotated[Real, Field(ge=0)] = 0.0  # by which the proposal is held to the prior, in nats
    epochs: Annotated[Real, Field(gt=0)] | None = None  # most passes over a group in the confirming run
    draws: Annotated[Whole, Field(ge=10)] = 50  # of other samples of the runs, for the interval
    repeats: Count = 2  # seeds of each mixture in the confirming run
