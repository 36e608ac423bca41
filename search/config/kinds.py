"""The sections of rules and domains, which a file names by `kind`; `policies` has their settings."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, RootModel

from shoal.policies.rules import EXPLOITS, EXPLORES
from shoal.policies.sampling.rules import SAMPLERS
from shoal.policies.space import DOMAINS, Space
from shoal.search.config.sections_of import OneOf, Settings, kind_in, kind_of
from shoal.trainables.objectives.kinds import OBJECTIVES
from shoal.trainables.pretrained.settings import LowRank

EXPLOIT = {kind: kind_of(kind, rule) for kind, rule in EXPLOITS.items()}
EXPLORE = {kind: kind_of(kind, rule) for kind, rule in EXPLORES.items()}
SAMPLER = {kind: kind_of(kind, rule) for kind, rule in SAMPLERS.items()}
DOMAIN: dict[str, type[BaseModel]] = {kind: kind_of(kind, domain) for kind, domain in DOMAINS.items()}
NO_EXPLOIT = EXPLOIT["none"](kind="none")

# the adapters of pretrained models
ADAPTER = {"lora": kind_of("lora", LowRank)}

# the losses of built-in classes
OBJECTIVE: dict[str, type[BaseModel]] = {kind: kind_of(kind, made) for kind, made in OBJECTIVES.items()}

AnyAdapter = Annotated[Any, OneOf(ADAPTER)]
AnyExploit = Annotated[Any, OneOf(EXPLOIT)]
AnyExplore = Annotated[Any, OneOf(EXPLORE)]
AnySampler = Annotated[Any, OneOf(SAMPLER)]


def one_as_list(given: Any) -> Any:
    """Return one objective as a list of one."""
    return list(given) if isinstance(given, list | tuple) else [given]


AnyObjectives = Annotated[list[Annotated[Any, OneOf(OBJECTIVE)]], BeforeValidator(one_as_list)]


class SpaceWithin(RootModel[dict[str, "AnyDomain"]]):
    """Several domains under one name; the member gets a dict under that name."""

    def build(self) -> Space:
        return {name: part.build() for name, part in self.root.items()}


def domain_in(value: Any) -> str:
    """Return the kind of a domain, or "space" for a mapping of mappings, which has no kind."""
    parts = value.values() if isinstance(value, Mapping) else ()
    within = parts and all(isinstance(part, Mapping | Settings | SpaceWithin) for part in parts)
    return "space" if within or isinstance(value, SpaceWithin) else kind_in(value)


AnyDomain = Annotated[Any, OneOf(DOMAIN | {"space": SpaceWithin}, domain_in)]
SpaceWithin.model_rebuild()
