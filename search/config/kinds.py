"""The sections of rules and domains, which a file names by `kind`; `policies` has their settings."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, RootModel

from shoal.policies.rules import EXPLOITS, EXPLORES
from shoal.policies.space import DOMAINS, Space
from shoal.search.config.sections_of import OneOf, Sections, Settings, kind_in, kind_of


def sampler_kinds() -> Mapping[str, type]:
    from shoal.policies.sampling.rules import SAMPLERS

    return SAMPLERS


def adapter_kinds() -> Mapping[str, type]:
    from shoal.trainables.pretrained.settings import LowRank

    return {"lora": LowRank}


def objective_kinds() -> Mapping[str, type]:
    from shoal.trainables.objectives.kinds import OBJECTIVES

    return OBJECTIVES


EXPLOIT = Sections(lambda: EXPLOITS)
EXPLORE = Sections(lambda: EXPLORES)
SAMPLER = Sections(sampler_kinds)
ADAPTER = Sections(adapter_kinds)  # the adapters of pretrained models
OBJECTIVE = Sections(objective_kinds)  # the losses of built-in classes

AnyAdapter = Annotated[Any, OneOf(ADAPTER)]
AnyExploit = Annotated[Any, OneOf(EXPLOIT)]
AnyExplore = Annotated[Any, OneOf(EXPLORE)]
AnySampler = Annotated[Any, OneOf(SAMPLER)]


def no_exploit() -> Any:
    """Return the section by which nobody copies."""
    return EXPLOIT["none"](kind="none")


def one_as_list(given: Any) -> Any:
    """Return one objective as a list of one."""
    return list(given) if isinstance(given, list | tuple) else [given]


AnyObjectives = Annotated[list[Annotated[Any, OneOf(OBJECTIVE)]], BeforeValidator(one_as_list)]


def domain_in(value: Any) -> str:
    """Return the kind of a domain, or "space" for a mapping of mappings, which has no kind."""
    parts = value.values() if isinstance(value, Mapping) else ()
    within = parts and all(isinstance(part, Mapping | Settings | SpaceWithin) for part in parts)
    return "space" if within or isinstance(value, SpaceWithin) else kind_in(value)


def domain_section(kind: str, made: Any) -> Any:
    return SpaceWithin if kind == "space" else kind_of(kind, made)


DOMAIN = Sections(lambda: {**DOMAINS, "space": SpaceWithin}, domain_section)
AnyDomain = Annotated[Any, OneOf(DOMAIN, domain_in)]


class SpaceWithin(RootModel[dict[str, AnyDomain]]):
    """Several domains under one name; the member gets a dict under that name."""

    def build(self) -> Space:
        return {name: part.build() for name, part in self.root.items()}
