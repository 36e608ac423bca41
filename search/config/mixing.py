"""The section `mixing:` of a run's file: a mixing policy with proportions by group name, and its bounds."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from policies.mixers import visits
from policies.mixers.rules import MIXERS
from search.config.kinds import Count, Flag, Real, Settings, Share, Unbounded, Whole, named

ByGroup = dict[str, Annotated[Real, Field(ge=0)]]  # a group that is left out has 0
Unit = Annotated[Real, Field(ge=0, lt=1)]
PROBED = "mixing"  # the held-out split of the rows that a policy is told about


class Mixture(Settings):
    """A mixing policy as a file gives it."""

    def tables(self) -> dict[str, ByGroup]:
        """Return what is given by group name, by the place of it below `mixing.policy`."""
        return {name: value for name, value in self if isinstance(value, dict)}

    def build(self, groups: Sequence[str], targets: Sequence[str]) -> visits.Mixer:
        values = {
            name: _settled(value, targets if name == "objective" else groups, targets) for name, value in self
        }
        mixer: visits.Mixer = MIXERS[values.pop("kind")](**values)
        return mixer


def _settled(value: Any, groups: Sequence[str], targets: Sequence[str]) -> Any:
    """Return what is given by name in the groups' order; a table of tables is of targets within groups."""
    if isinstance(value, dict):
        nested = any(isinstance(part, dict) for part in value.values())
        absent = dict.fromkeys(targets, 0.0) if nested else 0.0
        return tuple(_settled(value.get(group, absent), targets, targets) for group in groups) if value else ()
    if isinstance(value, list):
        return tuple((stage.from_step, _settled(stage.proportions, groups, targets)) for stage in value)
    return value


class FixedMixture(Mixture):
    kind: Literal["fixed"]
    proportions: ByGroup


class StratifiedMixture(Mixture):
    kind: Literal["stratified"]


class ProportionalMixture(Mixture):
    kind: Literal["proportional"]


class TemperatureMixture(Mixture):
    kind: Literal["temperature"]
    temperature: Real = 2.0


class RandomMixture(Mixture):
    kind: Literal["random"]
    strength: Real = 1.0


class Stage(Settings):
    from_step: Annotated[Whole, Field(ge=0)]
    proportions: ByGroup


class StagesMixture(Mixture):
    kind: Literal["stages"]
    stages: list[Stage]

    def tables(self) -> dict[str, ByGroup]:
        return {f"stages.{place}.proportions": stage.proportions for place, stage in enumerate(self.stages)}


class EndUpsamplingMixture(Mixture):
    kind: Literal["end_upsampling"]
    final: ByGroup
    share: Real = 0.2
    base: ByGroup = Field(default_factory=dict)
    without: str = ""


class AioliMixture(Mixture):
    kind: Literal["aioli"]
    rate: Annotated[Real, Field(ge=0)] = 0.2
    every: Annotated[Whole, Field(ge=2)] = 250
    probe_share: Unit = 0.13
    sweeps: Count = 4
    smoothing: Unit = 0.5
    update: Literal["cumulative", "from_uniform_ema"] = "from_uniform_ema"
    memory: Unit = 0.1
    scale: Literal["total", "median", "column", "none"] = "median"
    noise: Annotated[Real, Field(ge=0)] = 2.0
    prior: ByGroup = Field(default_factory=dict)
    prior_steps: Annotated[Whole, Field(ge=0)] = 0
    restart: Literal["uniform", "prior"] = "prior"
    objective: ByGroup | Literal["perplexity"] = Field(default_factory=dict)


class AdoMixture(Mixture):
    kind: Literal["ado"]
    every: Count = 10
    refit: Count = 100
    skip: Annotated[Whole, Field(ge=0)] = 50
    fresh: Share = 0.1
    recency: Share = 0.1
    power: Annotated[Real, Field(ge=0, le=1)] = 0.5
    least: Unit = 0.01
    slowest: Annotated[Real, Field(ge=0, le=1)] = 0.05


class SkillItMixture(Mixture):
    kind: Literal["skill_it"]
    graph: dict[str, dict[str, Real]]  # of the group that is trained, what it does to each
    rate: Annotated[Real, Field(ge=0)] = 0.2
    every: Count = 50
    window: Count = 3

    def tables(self) -> dict[str, ByGroup]:
        return {"graph": dict.fromkeys(self.graph, 1.0)} | {
            f"graph.{group}": row for group, row in self.graph.items()
        }


class DoReMiMixture(Mixture):
    kind: Literal["doremi"]
    rate: Annotated[Real, Field(ge=0)] = 1.0
    every: Count = 1
    smoothing: Annotated[Real, Field(ge=0, le=1)] = 1e-3
    proxy_share: Annotated[Real, Field(gt=0, le=1)] = 0.5


class DoGEMixture(Mixture):
    kind: Literal["doge"]
    rate: Annotated[Real, Field(ge=0)] = 0.05
    every: Count = 1
    smoothing: Annotated[Real, Field(ge=0, le=1)] = 0.0
    proxy_share: Annotated[Real, Field(gt=0, le=1)] = 0.5
    own: Flag = False
    by_norm: Flag = True
    least: Real = 0.0
    most: Real = 5.0


AnyMixture = Annotated[
    FixedMixture
    | StratifiedMixture
    | ProportionalMixture
    | TemperatureMixture
    | RandomMixture
    | StagesMixture
    | EndUpsamplingMixture
    | AioliMixture
    | AdoMixture
    | SkillItMixture
    | DoReMiMixture
    | DoGEMixture,
    Field(discriminator="kind"),
    BeforeValidator(named),
]


class Mixing(Settings):
    """How each member chooses what share of its rows comes from which group."""

    policy: AnyMixture
    reference: str | None = None  # the folder of an exported model, such as runs/NAME/best: for doremi
    floor: Unit = 0.0  # least share of each group, probes excepted
    epochs: Annotated[Unbounded, Field(gt=0)] | None = None  # most passes over a group
    evaluation_rows: Count | None = None  # that the policy is told about; as many as training.evaluation_rows
    unseen: list[str] = Field(default_factory=list)  # groups that count in place of those that are trained on

    def build(self, groups: Sequence[str]) -> visits.Mixing:
        """Return the mixing over the trained ones of these groups."""
        bounds = {} if self.epochs is None else {"epochs": self.epochs}
        trained = [group for group in groups if group not in self.unseen]
        return visits.Mixing(self.policy.build(trained, self.unseen or trained), floor=self.floor, **bounds)


def settled(mixing: visits.Mixing, changes: Mapping[str, Any]) -> visits.Mixing:
    """Return the mixing with some numbers replaced, of its bounds or of its policy."""
    own = {field.name for field in fields(mixing)} - {"policy"}
    outer = {name: value for name, value in changes.items() if name in own}
    inner = {name: value for name, value in changes.items() if name not in own}
    policy: Any = mixing.policy
    return replace(mixing, policy=replace(policy, **inner), **outer)
