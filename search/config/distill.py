"""The section `distill` of a run's file."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shoal.search.config.sections_of import Count, Flag, Real, Settings, WholeNumber
from shoal.trainables.distill.spaces import SubSpace

Weight = Annotated[Real, Field(ge=0)]

Objective = Literal["macs", "parameters", "latency"]
UNITS = {"macs": "million MACs", "parameters": "million weights", "latency": "ms"}


class SpaceSettings(Settings):
    """A sub-space: all combinations of four axes, within the teacher's layers and heads."""

    depths: Annotated[list[Count], Field(min_length=1)]  # numbers of layers
    heads: Annotated[list[Count], Field(min_length=1)]  # numbers of attention heads
    widths: Annotated[list[Count], Field(min_length=1)]  # widths of the stream between layers
    # width of the feed-forward layer, as a multiple of the stream's
    ratios: Annotated[list[Annotated[Real, Field(gt=0)]], Field(min_length=1)]

    @model_validator(mode="after")
    def check(self) -> "SpaceSettings":
        self.build(max(self.depths), 1)
        return self

    def build(self, layers: int, head_width: int) -> SubSpace:
        return SubSpace(
            tuple(self.depths),
            tuple(self.heads),
            tuple(self.widths),
            tuple(self.ratios),
            layers=layers,
            head_width=head_width,
        )


class Losses(Settings):
    """The weight of each loss in the sum that the student minimises."""

    relation: Weight = 1.0  # weight of the loss on relations between tokens (MiniLMv2)
    hidden: Weight = 0.0  # weight of the loss on the last layer's stream
    logits: Weight = 0.0  # only decoders have them; the teachers in `ensemble` count too
    temperature: Annotated[Real, Field(gt=0)] = 1.0  # the logits are divided by it

    @model_validator(mode="after")
    def check(self) -> "Losses":
        if not (self.relation or self.hidden or self.logits):
            raise ValueError("one of relation, hidden and logits must count more than 0")
        return self


class ProxySection(Settings):
    """A labelled task that ranks the networks in place of their loss.

    Each line of its two files is a text, a tab and a label.
    """

    train: str  # file of the texts that the networks are tuned on
    test: str  # file of the texts that rank them
    steps: Count = 100  # steps that tune each super-network to the task
    batch: Count = 32  # texts of a step
    learning_rate: Annotated[Real, Field(gt=0)] = 5e-4  # largest learning rate of that tuning


class StudentSearch(Settings):
    """How students are picked out of the trained super-networks."""

    method: Literal["all", "nsga2"] | None = (
        None  # by default `all` where a space is small enough, else `nsga2`
    )
    evaluations: Count = 256  # networks that NSGA-II evaluates in each space
    objective: Objective = "macs"  # the cost that `budgets` limits
    proxy: ProxySection | None = None  # by default the loss on held-out rows ranks the networks
    # the best network within each of these costs is named as a student
    budgets: list[Annotated[Real, Field(gt=0)]] = Field(default_factory=list)


class Distill(Settings):
    teacher: str  # a folder, or package:NAME/FOLDER inside an installed package
    ensemble: list[str] = Field(default_factory=list)  # further teachers: their classes count like the first's
    layer: Annotated[WholeNumber, Field(ge=0)] | None = (
        None  # the teacher's layer that is learnt from; by default its last
    )
    losses: Losses = Losses()  # the parts of the student's loss
    # heads into which queries, keys and values are cut anew before they are compared
    relation_heads: Count = 16
    # how relations are compared: by Kullback-Leibler divergence, or by squared differences
    relation: Literal["kl", "mse"] = "kl"
    chunk: Count | None = None  # relation heads in memory at once
    # each step trains so many random sub-networks beside the largest and the smallest
    random: Annotated[WholeNumber, Field(ge=0)] = 2
    tilt: Real = 0.0  # above 0 larger sub-networks are drawn more often, below 0 smaller ones
    # weight of what the largest sub-network teaches the smaller ones
    inplace: Annotated[Real, Field(ge=0, le=1)] = 0.0
    cache_megabytes: Annotated[Real, Field(gt=0)] = (
        1024.0  # limit on the teacher's outputs that are kept in memory
    )
    staged: Flag = False  # the teacher runs in a stage of Ray Data, and not on the workers
    spaces: Annotated[dict[str, SpaceSettings], Field(min_length=1)]  # the sub-spaces of students, by name
    search: StudentSearch = StudentSearch()  # how students are picked out of the trained super-networks

    @property
    def teachers(self) -> list[str]:
        return [self.teacher, *self.ensemble]
