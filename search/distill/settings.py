"""The section `distill` of a run's file."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from search.kinds import Count, Settings
from trainables.distill.spaces import SubSpace
from trainables.settings import Recipe

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
    ratios: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]

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


class StudentSearch(Settings):
    """How students are picked out of the trained super-networks."""

    method: Literal["all", "nsga2"] | None = None  # all of a space that is small enough, else NSGA-II
    evaluations: Count = 256  # of each space that is not searched whole
    objective: Objective = "macs"  # the cost that budgets are of
    budgets: list[Annotated[float, Field(gt=0)]] = Field(default_factory=list)


class Distill(Settings):
    teacher: str  # a folder, or package:NAME/FOLDER inside an installed package
    layer: Annotated[int, Field(ge=0)] | None = None  # of the teacher, the last by default
    relation_heads: Count = 16
    relation: Literal["kl", "mse"] = "kl"
    chunk: Count | None = None  # relation heads in memory at once
    random: Annotated[int, Field(ge=0)] = 2  # sub-networks of a step beside the largest and the smallest
    tilt: float = 0.0
    inplace: Annotated[float, Field(ge=0, le=1)] = 0.0
    cache_megabytes: Annotated[float, Field(gt=0)] = 1024.0  # most of what the teacher showed that is kept
    spaces: Annotated[dict[str, SpaceSettings], Field(min_length=1)]
    search: StudentSearch = StudentSearch()
