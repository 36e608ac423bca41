"""Domains and rules as a run's file names them: each with a `kind`, checked by the policy itself."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Tag,
    model_validator,
)

from policies.bayesian import FEWEST
from policies.population import HISTORY
from policies.region import LARGEST, SMALLEST
from policies.rules import EXPLOITS, EXPLORES
from policies.sampling.rules import SAMPLERS
from policies.space import DOMAINS, Space

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


class Kind(Settings):
    """One of the policies' domains or rules; the checks are those of the policy itself."""

    @model_validator(mode="after")
    def check(self) -> "Kind":
        self.build()
        return self

    def build(self) -> Any:
        values = {name: _tuples(value) for name, value in self}
        return {**DOMAINS, **EXPLOITS, **EXPLORES, **SAMPLERS}[values.pop("kind")](**values)


class FloatDomain(Kind):
    kind: Literal["float"]
    low: float
    high: float
    log: bool = False


class IntDomain(Kind):
    kind: Literal["int"]
    low: int
    high: int
    log: bool = False


class OrderedDomain(Kind):
    kind: Literal["ordered"]
    values: list[Any]


class CategoricalDomain(Kind):
    kind: Literal["categorical"]
    values: list[Any]


class BoolDomain(Kind):
    kind: Literal["bool"]


class ConstantDomain(Kind):
    kind: Literal["constant"]
    value: Any


class SpaceWithin(RootModel[dict[str, "AnyDomain"]]):
    """Domains under a name of their own; the member gets a dict under that name."""

    def build(self) -> Space:
        return {name: part.build() for name, part in self.root.items()}


def _tag(value: Any) -> str:
    """Return the kind of a domain, or "space" of a mapping that has none and holds nothing but mappings."""
    if isinstance(value, SpaceWithin):
        return "space"
    if not isinstance(value, Mapping):
        return str(getattr(value, "kind", None))
    within = value and all(isinstance(part, Mapping | Kind | SpaceWithin) for part in value.values())
    return "space" if within else str(value.get("kind"))


AnyDomain = Annotated[
    Annotated[FloatDomain, Tag("float")]
    | Annotated[IntDomain, Tag("int")]
    | Annotated[OrderedDomain, Tag("ordered")]
    | Annotated[CategoricalDomain, Tag("categorical")]
    | Annotated[BoolDomain, Tag("bool")]
    | Annotated[ConstantDomain, Tag("constant")]
    | Annotated[SpaceWithin, Tag("space")],
    Discriminator(_tag),
]
SpaceWithin.model_rebuild()


class TruncationRule(Kind):
    kind: Literal["truncation"]
    fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.25


class TTestRule(Kind):
    kind: Literal["t_test"]
    alpha: Share = 0.05
    window: Annotated[int, Field(ge=2, le=HISTORY)] = 10


class TournamentRule(Kind):
    kind: Literal["tournament"]
    rivals: Count = 1


class WinnerTakesAllRule(Kind):
    kind: Literal["winner_takes_all"]


class ThresholdRule(Kind):
    kind: Literal["threshold"]
    deviations: Annotated[float, Field(ge=0)] = 1.0
    distance: Annotated[float, Field(ge=0)] = 0.0


class MultipleFrequencyRule(Kind):
    kind: Literal["multiple_frequency"]
    frequencies: Annotated[list[Count], Field(min_length=1)] = [1, 10, 25, 50]


class FireRule(Kind):
    kind: Literal["fire"]
    patience: Annotated[int, Field(ge=1, lt=HISTORY)] = 2
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.5


class NoExploitRule(Kind):
    kind: Literal["none"]


class PerturbRule(Kind):
    kind: Literal["perturb"]
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    factors: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=1)]] = (0.8, 1.25)


class ResampleRule(Kind):
    kind: Literal["resample"]


class AdditiveRule(Kind):
    kind: Literal["additive"]
    scale: Annotated[float, Field(gt=0, le=1)] = 0.1


class BayesianRule(Kind):
    kind: Literal["bayesian"]
    window: Annotated[int, Field(ge=FEWEST)] = 200
    memory: Count = 50
    region: Annotated[float, Field(ge=SMALLEST, le=LARGEST)] | None = None


class RandomSubsetRule(Kind):
    kind: Literal["random_subset"]
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    replacement: bool = False


class SeTaRule(Kind):
    kind: Literal["seta"]
    prune: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    groups: Count = 10
    window: Count = 5
    until: Annotated[float, Field(ge=0, le=1)] = 0.875
    age: Count = 12


class InfoBatchRule(Kind):
    kind: Literal["infobatch"]
    prune: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    until: Annotated[float, Field(ge=0, le=1)] = 0.875


class DynamicRule(Kind):
    kind: Literal["lin_upper", "quadratic", "extremes"]
    temperature: Annotated[float, Field(ge=0.01)] = 1.0
    reach: Annotated[float, Field(gt=0)] = 1.0
    burn_in: Annotated[int, Field(ge=0)] = 0


class EasyToHardRule(Kind):
    kind: Literal["easy_to_hard"]
    by: Literal["score", "loss"] = "score"


def named(value: Any) -> Any:
    """Let a word alone stand for the rule with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


AnyExploit = Annotated[
    TruncationRule
    | TTestRule
    | TournamentRule
    | WinnerTakesAllRule
    | ThresholdRule
    | MultipleFrequencyRule
    | FireRule
    | NoExploitRule,
    Field(discriminator="kind"),
    BeforeValidator(named),
]
AnyExplore = Annotated[
    PerturbRule | ResampleRule | AdditiveRule | BayesianRule,
    Field(discriminator="kind"),
    BeforeValidator(named),
]
AnySampler = Annotated[
    RandomSubsetRule | SeTaRule | InfoBatchRule | DynamicRule | EasyToHardRule,
    Field(discriminator="kind"),
    BeforeValidator(named),
]
