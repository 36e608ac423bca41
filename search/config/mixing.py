"""The section `mixing:` of a run's file: a mixing policy with proportions by group name, and its bounds."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import Field, create_model

from shoal.policies.mixers import visits
from shoal.policies.mixers.mixer import Mixer
from shoal.policies.mixers.rules import MIXERS
from shoal.search.config.sections_of import (
    Count,
    OneOf,
    Real,
    Sections,
    Settings,
    Unbounded,
    WholeNumber,
    in_file,
    keys_of,
    remade,
)

ByGroup = dict[str, Annotated[Real, Field(ge=0)]]  # a group that is left out has 0
Unit = Annotated[Real, Field(ge=0, lt=1)]
PROBED = "mixing"  # the held-out split on which a policy measures losses
SHARES = tuple[float, ...]  # a policy has the shares in the groups' order, a file by group name


class Stage(Settings):
    from_step: Annotated[WholeNumber, Field(ge=0)]  # the first step of the stage
    proportions: ByGroup  # share of each group from then on


# a policy's type of a setting -> the type in a file: the policy has an order of groups, the file their names
BY_NAME: dict[Any, Any] = {
    SHARES: ByGroup,
    tuple[SHARES, ...]: dict[str, dict[str, Real]],  # a row for each group that is trained
    tuple[tuple[int, SHARES], ...]: list[Stage],
}


def by_name(hint: Any) -> Any:
    """Return the type that a value in a file must have where the policy has this one."""
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, map(by_name, get_args(hint)))
    return BY_NAME.get(hint) or in_file(hint)


class Policy(Settings):
    """A mixing policy as a file gives it, with groups by name."""

    made_of: ClassVar[type]

    def tables(self) -> dict[str, ByGroup]:
        """Return each table that a file gives by group name; the key is its place below `mixing.policy`."""
        found: dict[str, Any] = {}
        for name, value in self:
            if isinstance(value, list):
                found |= {f"{name}.{place}.proportions": stage.proportions for place, stage in enumerate(value)}
            elif isinstance(value, dict) and any(isinstance(row, dict) for row in value.values()):
                found |= {name: dict.fromkeys(value, 1.0)}
                found |= {f"{name}.{group}": row for group, row in value.items()}
            elif isinstance(value, dict):
                found[name] = value
        return found

    def build(self, groups: Sequence[str], targets: Sequence[str]) -> Mixer:
        values = {
            name: _settled(value, targets if name == "objective" else groups, targets) for name, value in self
        }
        mixer: Mixer = MIXERS[values.pop("kind")](**values)
        return mixer

    def __reduce__(self) -> Any:
        values = dict(self)
        return remade, (policy_of, (values["kind"], MIXERS[values["kind"]]), values, self.model_fields_set)


def _settled(value: Any, groups: Sequence[str], targets: Sequence[str]) -> Any:
    """Return a table by name as a tuple in the groups' order; a table of tables has targets within groups."""
    if isinstance(value, dict):
        nested = any(isinstance(part, dict) for part in value.values())
        absent = dict.fromkeys(targets, 0.0) if nested else 0.0
        return tuple(_settled(value.get(group, absent), targets, targets) for group in groups) if value else ()
    if isinstance(value, list):
        return tuple((stage.from_step, _settled(stage.proportions, groups, targets)) for stage in value)
    return value


@cache
def policy_of(kind: str, mixer: type) -> Any:
    """Return the section that names a mixing policy by its kind, and sets it."""
    keys = keys_of(mixer, convert=by_name)
    # a policy's empty tuple is a file's empty table
    keys = {name: (hint, {} if default == () else default) for name, (hint, default) in keys.items()}
    made: Any = create_model(mixer.__name__, __base__=Policy, kind=(Literal[kind], ...), **keys)  # type: ignore[arg-type]
    made.made_of = mixer
    return made


POLICY = Sections(lambda: MIXERS, policy_of)


class MixingSection(Settings):
    """How each member chooses what share of its rows comes from which group."""

    policy: Annotated[Any, OneOf(POLICY)]  # the rule that moves a member's mixture
    reference: str | None = None  # doremi needs the folder of an exported model, such as runs/NAME/best
    floor: Unit = 0.0  # least share of each group, except while a visit probes
    epochs: Annotated[Unbounded, Field(gt=0)] | None = None  # most passes over a group
    # rows of each group on which the policy measures losses; by default training.evaluation_rows
    evaluation_rows: Count | None = None
    # the policy lowers the losses of these groups, on which no member trains
    unseen: list[str] = Field(default_factory=list)

    def build(self, groups: Sequence[str]) -> visits.BoundedMixing:
        """Return the bounded policy over those of these groups that are trained on."""
        bounds = {} if self.epochs is None else {"epochs": self.epochs}
        trained = [group for group in groups if group not in self.unseen]
        return visits.BoundedMixing(
            self.policy.build(trained, self.unseen or trained), floor=self.floor, **bounds
        )


def with_numbers(mixing: visits.BoundedMixing, changes: Mapping[str, Any]) -> visits.BoundedMixing:
    """Return the bounded policy with some numbers replaced; they belong to its bounds or to its policy."""
    own = {field.name for field in fields(mixing)} - {"policy"}
    outer = {name: value for name, value in changes.items() if name in own}
    inner = {name: value for name, value in changes.items() if name not in own}
    policy: Any = mixing.policy
    return replace(mixing, policy=replace(policy, **inner), **outer)
