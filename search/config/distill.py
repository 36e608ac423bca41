"""The section `distill` of a run's file."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shoal.search.config.sections_of import Count, Flag, Real, Settings, Whole
from shoal.trainables.distill.spaces import SubSpace
from shoal.trainables.settings import Recipe

Weight = Annotated[Real, Field(ge=0)]

Objective = Literal["macs", "parameters", "latency"]
UNITS = {"macs": "million MACs", "parameters": "million weights", "latency": "ms"}

# what a super-network does not have
ABSENT = {"dropout", "label_smoothing", "z_loss", "optimiser", "steps", "momentum"}
SEARCHED = (set(Recipe.__dataclass_fields__) - ABSENT) | {"tilt", "inplace"}


class SpaceSettings(Settings):
    """A sub-space: all combinations of four axes, within the teacher's layers and heads."""

    depths: Annotated[list[Count], Field(min_length=1)]
    heads: Annotated[list[Count], Field(min_length=1)]
    widths: Annotated[list[Count], Field(min_length=1)]
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
    """What is learnt of the teacher: how much each loss counts in the sum."""

    relation: Weight = 1.0
    hidden: Weight = 0.0  # of the last stream
    logits: Weight = 0.0  # of decoders, with those of the teachers in `ensemble`
    temperature: Annotated[Real, Field(gt=0)] = 1.0  # of the logits

    @model_validator(mode="after")
    def check(self) -> "Losses":
        if not (self.relation or self.hidden or self.logits):
            raise ValueError("one of relation, hidden and logits must count more than 0")
        return self


class Proxy(Settings):
    """A labelled task that ranks the networks in place of their loss; a line is a text, a tab and a label."""

    train: str
    test: str
    steps: Count = 100  # of tuning each super-network to it
    batch: Count = 32
    learning_rate: Annotated[Real, Field(gt=0)] = 5e-4


class StudentSearch(Settings):
    """How students are picked out of the trained super-networks."""

    method: Literal["all", "nsga2"] | None = None  # all of a space that is small enough, else NSGA-II
    evaluations: Count = 256  # of each space that is not searched whole
    objective: Objective = "macs"  # the cost that budgets are of
    proxy: Proxy | None = None  # ranked by the loss on held-out rows by default
    budgets: list[Annotated[Real, Field(gt=0)]] = Field(default_factory=list)


class Distill(Settings):
    teacher: str  # a folder, or package:NAME/FOLDER inside an installed package
    ensemble: list[str] = Field(default_factory=list)  # further teachers: their classes count like the first's
    layer: Annotated[Whole, Field(ge=0)] | None = None  # of the teacher, the last by default
    losses: Losses = Losses()
    relation_heads: Count = 16
    relation: Literal["kl", "mse"] = "kl"
    chunk: Count | None = None  # relation heads in memory at once
    random: Annotated[Whole, Field(ge=0)] = 2  # sub-networks of a step beside the largest and the smallest
    tilt: Real = 0.0
    inplace: Annotated[Real, Field(ge=0, le=1)] = 0.0
    cache_megabytes: Annotated[Real, Field(gt=0)] = 1024.0  # most of what the teacher showed that is kept
    staged: Flag = False  # the teacher looks at the rows in a stage of Ray Data, and not on the workers
    spaces: Annotated[dict[str, SpaceSettings], Field(min_length=1)]
    search: StudentSearch = StudentSearch()

    @property
    def teachers(self) -> list[str]:
        return [self.teacher, *self.ensemble]
