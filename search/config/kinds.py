"""Domains and rules as a run's file names them: each with a `kind`, checked by the policy itself."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Strict,
    Tag,
    model_validator,
)

from policies.bayesian import FEWEST
from policies.population import HISTORY
from policies.region import LARGEST, SMALLEST
from policies.rules import EXPLOITS, EXPLORES
from policies.sampling.rules import SAMPLERS
from policies.space import DOMAINS, Space, frozen


def whole(value: Any) -> Any:
    """Let 1e4 stand for a whole number, which YAML reads as one that is not."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# a word is no number, and neither is true; Python's limits of numbers are larger than numpy's and Parquet's
Real = Annotated[float, Strict(), AllowInfNan(False)]
Unbounded = Annotated[float, Strict()]  # infinity means that there is no limit
Whole = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63), BeforeValidator(whole)]
Flag = Annotated[bool, Strict()]
Share = Annotated[Real, Field(gt=0, lt=1)]
Count = Annotated[Whole, Field(ge=1)]
Values = Annotated[tuple[Any, ...], BeforeValidator(frozen)]
Hyperparameters = Annotated[dict[str, Any], BeforeValidator(frozen)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Kind(Settings):
    """One of the policies' domains or rules; the checks are those of the policy itself."""

    @model_validator(mode="after")
    def check(self) -> "Kind":
        self.build()
        return self

    def build(self) -> Any:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in self}
        return {**DOMAINS, **EXPLOITS, **EXPLORES, **SAMPLERS}[str(values.pop("kind"))](**values)


class FloatDomain(Kind):
    kind: Literal["float"]
    low: Real
    high: Real
    log: Flag = False


class IntDomain(Kind):
    kind: Literal["int"]
    low: Whole
    high: Whole
    log: Flag = False


class OrderedDomain(Kind):
    kind: Literal["ordered"]
    values: Values


class CategoricalDomain(Kind):
    kind: Literal["categorical"]
    values: Values


class BoolDomain(Kind):
    kind: Literal["bool"]


class ConstantDomain(Kind):
    kind: Literal["constant"]
    value: Annotated[Any, BeforeValidator(frozen)]


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
    fraction: Annotated[Real, Field(gt=0, le=0.5)] = 0.25


class TTestRule(Kind):
    kind: Literal["t_test"]
    alpha: Share = 0.05
    window: Annotated[Whole, Field(ge=2, le=HISTORY)] = 10


class TournamentRule(Kind):
    kind: Literal["tournament"]
    rivals: Count = 1


class WinnerTakesAllRule(Kind):
    kind: Literal["winner_takes_all"]


class ThresholdRule(Kind):
    kind: Literal["threshold"]
    deviations: Annotated[Real, Field(ge=0)] = 1.0
    distance: Annotated[Real, Field(ge=0)] = 0.0


class MultipleFrequencyRule(Kind):
    kind: Literal["multiple_frequency"]
    frequencies: Annotated[list[Count], Field(min_length=1)] = [1, 10, 25, 50]


class FireRule(Kind):
    kind: Literal["fire"]
    patience: Annotated[Whole, Field(ge=1, lt=HISTORY)] = 2
    smoothing: Annotated[Real, Field(ge=0, lt=1)] = 0.5


class NoExploitRule(Kind):
    kind: Literal["none"]


class PerturbRule(Kind):
    kind: Literal["perturb"]
    resample: Annotated[Real, Field(ge=0, le=1)] = 0.25
    factors: tuple[Annotated[Real, Field(gt=0, lt=1)], Annotated[Real, Field(gt=1)]] = (0.8, 1.25)


class ResampleRule(Kind):
    kind: Literal["resample"]


class AdditiveRule(Kind):
    kind: Literal["additive"]
    scale: Annotated[Real, Field(gt=0, le=1)] = 0.1


class BayesianRule(Kind):
    kind: Literal["bayesian"]
    window: Annotated[Whole, Field(ge=FEWEST)] = 200
    memory: Count = 50
    region: Annotated[Real, Field(ge=SMALLEST, le=LARGEST)] | None = None


class RandomSubsetRule(Kind):
    kind: Literal["random_subset"]
    ratio: Annotated[Real, Field(gt=0, le=1)] = 0.1
    replacement: Flag = False


class SeTaRule(Kind):
    kind: Literal["seta"]
    prune: Annotated[Real, Field(ge=0, le=0.9)] = 0.0
    groups: Count = 10
    window: Count = 5
    until: Annotated[Real, Field(ge=0, le=1)] = 0.875
    age: Count = 12


class InfoBatchRule(Kind):
    kind: Literal["infobatch"]
    prune: Annotated[Real, Field(ge=0, le=0.9)] = 0.5
    until: Annotated[Real, Field(ge=0, le=1)] = 0.875


class DynamicRule(Kind):
    kind: Literal["lin_upper", "quadratic", "extremes"]
    temperature: Annotated[Real, Field(ge=0.01)] = 1.0
    reach: Annotated[Real, Field(gt=0)] = 1.0
    burn_in: Annotated[Whole, Field(ge=0)] = 0


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
