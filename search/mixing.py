"""The section `mixing:` of a run's file: a mixing policy with proportions by group name, and its bounds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from policies.mixers import visits
from policies.mixers.rules import MIXERS
from search.kinds import AnyDomain, Count, Settings, Share, SpaceWithin, named

if TYPE_CHECKING:
    from search.config import Run

ByGroup = dict[str, Annotated[float, Field(ge=0)]]  # a group that is left out has 0
Unit = Annotated[float, Field(ge=0, lt=1)]
PROBED = "mixing"  # the held-out split of the rows that a policy is told about
UNKNOWN = 10**9  # rows of a group before the corpus is there: enough for any budget


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
    temperature: float = 2.0


class RandomMixture(Mixture):
    kind: Literal["random"]
    strength: float = 1.0


class Stage(Settings):
    from_step: Annotated[int, Field(ge=0)]
    proportions: ByGroup


class StagesMixture(Mixture):
    kind: Literal["stages"]
    stages: list[Stage]

    def tables(self) -> dict[str, ByGroup]:
        return {f"stages.{place}.proportions": stage.proportions for place, stage in enumerate(self.stages)}


class EndUpsamplingMixture(Mixture):
    kind: Literal["end_upsampling"]
    final: ByGroup
    share: float = 0.2
    base: ByGroup = Field(default_factory=dict)
    without: str = ""


class AioliMixture(Mixture):
    kind: Literal["aioli"]
    rate: Annotated[float, Field(ge=0)] = 0.2
    every: Annotated[int, Field(ge=2)] = 250
    probe_share: Unit = 0.13
    sweeps: Count = 4
    smoothing: Unit = 0.5
    update: Literal["cumulative", "from_uniform_ema"] = "from_uniform_ema"
    memory: Unit = 0.1
    scale: Literal["total", "median", "column", "none"] = "median"
    noise: Annotated[float, Field(ge=0)] = 2.0
    prior: ByGroup = Field(default_factory=dict)
    prior_steps: Annotated[int, Field(ge=0)] = 0
    restart: Literal["uniform", "prior"] = "prior"
    objective: ByGroup | Literal["perplexity"] = Field(default_factory=dict)


class AdoMixture(Mixture):
    kind: Literal["ado"]
    every: Count = 10
    refit: Count = 100
    skip: Annotated[int, Field(ge=0)] = 50
    fresh: Share = 0.1
    recency: Share = 0.1
    power: Annotated[float, Field(ge=0, le=1)] = 0.5
    least: Unit = 0.01
    slowest: Annotated[float, Field(ge=0, le=1)] = 0.05


class SkillItMixture(Mixture):
    kind: Literal["skill_it"]
    graph: dict[str, dict[str, float]]  # of the group that is trained, what it does to each
    rate: Annotated[float, Field(ge=0)] = 0.2
    every: Count = 100
    window: Count = 3

    def tables(self) -> dict[str, ByGroup]:
        return {"graph": dict.fromkeys(self.graph, 1.0)} | {
            f"graph.{group}": row for group, row in self.graph.items()
        }


class DoReMiMixture(Mixture):
    kind: Literal["doremi"]
    rate: Annotated[float, Field(ge=0)] = 1.0
    every: Count = 1
    smoothing: Annotated[float, Field(ge=0, le=1)] = 1e-3
    proxy_share: Annotated[float, Field(gt=0, le=1)] = 0.5


class DoGEMixture(Mixture):
    kind: Literal["doge"]
    rate: Annotated[float, Field(ge=0)] = 0.05
    every: Count = 1
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.0
    proxy_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    own: bool = False
    by_norm: bool = True
    least: float = 0.0
    most: float = 5.0


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
WEIGHTS = {"objective", "graph"}  # given by group name, but no proportions


class Mixing(Settings):
    """How each member chooses what share of its rows comes from which group."""

    policy: AnyMixture
    reference: str | None = None  # the folder of an exported model, such as runs/NAME/best: for doremi
    floor: Unit = 0.0  # least share of each group, probes excepted
    epochs: Annotated[float, Field(gt=0)] | None = None  # most passes over a group
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


def groups_of(run: "Run", rows: Mapping[str, int]) -> visits.Groups:
    """Return what policies know of a run whose groups have so many training rows."""
    unseen, training = tuple(run.unseen), run.training
    trained = {group: count for group, count in rows.items() if group not in unseen}
    return visits.Groups(tuple(trained), tuple(trained.values()), training.batch, training.steps, unseen)


def check_mixing(run: "Run") -> str:
    """Return what is wrong with the mixing, as far as that is known without the corpus."""
    if run.mixing is None:
        return check_unmixed(run)
    if not run.data.groups:
        return ""  # said elsewhere
    problem = check_company(run) or check_unseen(run) or check_names(run)
    return problem or check_with_rows(run, dict.fromkeys(run.data.groups, UNKNOWN))


def check_company(run: "Run") -> str:
    """Return which other section does not go together with a mixing."""
    if not run.reads_text:
        return f"mixing: needs groups of text, so `trainable: decoder`, got {run.trainable}"
    if run.data.proportions is not None:
        return "mixing: stands in place of data.proportions; give one of the two"
    if run.data.exhausted != "repeat":
        return f"data.exhausted: must be repeat with mixing, whose epochs bound it, got {run.data.exhausted}"
    return ""


def check_unseen(run: "Run") -> str:
    """Return what is wrong with the groups that are not trained on."""
    assert run.mixing is not None
    unseen, kind = run.mixing.unseen, run.mixing.policy.kind
    if problem := check_table("mixing.unseen", dict.fromkeys(unseen, 1.0), run.data.groups, shares=False):
        return problem
    if unseen and not run.data.groups.keys() - set(unseen):
        return f"mixing.unseen: some group must be trained on, but these are all: {', '.join(unseen)}"
    if unseen and kind == "doge":
        return "mixing.unseen: doge sees gradients of what is trained alone; use aioli or skill_it"
    return ""


def check_names(run: "Run") -> str:
    """Return which proportions name an unknown group, or do not sum to 1."""
    assert run.mixing is not None
    unseen = run.mixing.unseen
    trained = [group for group in run.data.groups if group not in unseen]
    for place, table in run.mixing.policy.tables().items():
        of_targets = place == "objective" or place.startswith("graph.")
        groups = unseen or trained if of_targets else trained
        shares = place.split(".")[0] not in WEIGHTS
        if problem := check_table(f"mixing.policy.{place}", table, groups, shares):
            return problem
    return ""


def check_table(key: str, table: ByGroup, groups: Iterable[str], shares: bool = True) -> str:
    """Return what is wrong with numbers by group name, which are shares unless they are said to be none."""
    for group in table:
        if group not in groups:
            return f"{key}.{group}: no such group; it can be {', '.join(groups)}"
    if table and shares and abs(sum(table.values()) - 1) > 1e-6:
        return f"{key}: proportions must sum to 1, but these sum to {sum(table.values()):.6g}"
    return ""


def check_unmixed(run: "Run") -> str:
    if isinstance(run.hyperparameters.get("mixing"), SpaceWithin):
        return "hyperparameters.mixing: searches a mixing policy's settings, but there is no `mixing:`"
    return ""


def check_with_rows(run: "Run", rows: Mapping[str, int]) -> str:
    """Return what is wrong with the mixing over groups of so many training rows, or nothing."""
    assert run.mixing is not None
    groups = groups_of(run, rows)
    try:
        built = run.mixing.build(list(rows))
        visits.check(built, groups)
    except ValueError as error:
        return f"mixing: {error}"
    return check_within(run, built) or check_probes(run, built, groups) or check_searched(run, built, groups)


def check_within(run: "Run", built: visits.Mixing) -> str:
    """Return what is wrong with what has to be measured within a training step."""
    assert run.mixing is not None
    signals, kind = built.policy.signals, run.mixing.policy.kind
    if visits.EXCESS in signals and run.mixing.reference is None:
        return (
            f"mixing.reference: {kind} measures losses above those of a model that is trained already; name "
            f"the folder of an exported one, such as runs/NAME/best of a run in equal shares"
        )
    if visits.EXCESS not in signals and run.mixing.reference is not None:
        return f"mixing.reference: {kind} compares with no other model; leave it out"
    if run.cluster.stack and signals & visits.WITHIN:
        return (
            f"cluster.stack: what {kind} measures within a step is of one member, so its members train one by "
            f"one; leave it out"
        )
    if run.cluster.workers_per_member > 1 and signals & visits.WITHIN:
        return (
            f"cluster.workers_per_member: what {kind} measures within a step must be in one place; set it to 1"
        )
    return ""


def note_on_batches(run: "Run") -> str:
    """Return what to expect of batches that cannot hold a row of every group."""
    groups = groups_of(run, dict.fromkeys(run.data.groups, 1)).count
    if run.training.batch >= groups:
        return ""
    return (
        f"mixing: a batch of {run.training.batch} rows is smaller than the {groups} groups, so proportions "
        f"hold over a visit and not in each batch"
    )


def check_probes(run: "Run", built: visits.Mixing, groups: visits.Groups) -> str:
    """Return what is wrong with the visits that measure."""
    policy: Any = built.policy
    if visits.VALIDATION not in policy.signals or not hasattr(policy, "probe_steps"):
        return ""
    rows = policy.probe_steps(groups) * groups.batch
    if rows < groups.count:
        return (
            f"training.batch: a probe of {policy.probe_steps(groups)} steps of {groups.batch} rows must hold a "
            f"row of each of {groups.count} groups; use larger batches, fewer mixing.policy.sweeps, or more "
            f"mixing.policy.probe_share"
        )
    told = run.mixing.evaluation_rows if run.mixing else None
    if policy.noise and policy.sweeps < 2 and (told or run.training.evaluation_rows) < 2:
        return (
            "mixing.policy.noise: errors need two sweeps or two evaluation_rows of each group; give them, or "
            "move on any difference with noise: 0"
        )
    return ""


def check_searched(run: "Run", built: visits.Mixing, groups: visits.Groups) -> str:
    """Return what is wrong with the settings of the policy that are searched, at each end of their domains."""
    space = run.hyperparameters.get("mixing")
    if space is None:
        return ""
    if not isinstance(space, SpaceWithin):
        return "hyperparameters.mixing: must hold domains by name, such as `rate: {kind: float, ...}`"
    known, kind = searchable(built), run.mixing.policy.kind if run.mixing else ""
    for name, domain in space.root.items():
        key = f"hyperparameters.mixing.{name}"
        if name not in known:
            return f"{key}: {kind} has no such number; it has {', '.join(known)}"
        for value in ends(domain):
            try:
                visits.check(settled(built, {name: value}), groups)
            except (ValueError, TypeError) as error:
                return f"{key}: {value!r} cannot be: {error}"
    return ""


def searchable(built: visits.Mixing) -> list[str]:
    """Return the numbers of a policy that may be searched, and the bounds."""
    numbers = [
        field.name
        for field in fields(built.policy)  # type: ignore[arg-type]  # every policy is a dataclass
        if isinstance(getattr(built.policy, field.name), int | float) and field.name != "prior_steps"
    ]
    return [*numbers, "floor", "epochs"]


def ends(domain: AnyDomain) -> list[Any]:
    """Return a domain's bounds, or all its values."""
    if isinstance(domain, SpaceWithin):
        return ["a space"]
    low, high = getattr(domain, "low", None), getattr(domain, "high", None)
    if low is not None:
        return [low, high]
    return list(getattr(domain, "values", [])) or [getattr(domain, "value", True)]
