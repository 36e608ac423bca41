"""What is refused for a constant is refused for each value that a hyperparameter may take."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from search.config.distill import Distill
from search.config.explain import shown, wanted
from search.config.kinds import FloatDomain, Real, Settings, SpaceWithin
from search.config.run import Run
from search.config.sections import Training


def check_values(run: Run) -> str:
    """Return which value of a domain, a schedule or a start its setting may not have, or nothing."""
    if run.own:
        return ""  # only the user's own class knows
    for place, name, domain in named(run):
        if problem := check_value(run, name, domain):
            return f"{place}.{name}: {problem}"
    return ""


def named(run: Run) -> Iterator[tuple[str, str, Any]]:
    """Yield place, name and the domain or value of each hyperparameter, but those of a mixing policy."""
    given: dict[str, Mapping[str, Any]] = {"hyperparameters": run.hyperparameters}
    given |= {f"schedule.{place}": entry.hyperparameters for place, entry in enumerate(run.schedule)}
    given |= {f"starts.{place}": entry.hyperparameters for place, entry in enumerate(run.starts)}
    for place, values in given.items():
        yield from ((place, name, value) for name, value in values.items() if name != "mixing")


def check_value(run: Run, name: str, domain: Any) -> str:
    if run.trainable == "toy":
        return wrong("a parameter of the toy", Annotated[Real, ...], domain)
    section: type[Settings] = Training if name in Training.model_fields else Distill
    key = f"{'training' if section is Training else 'distill'}.{name}"
    if name not in section.model_fields:
        return ""  # said elsewhere
    return wrong(key, setting(section, name), domain)


def setting(section: type[Settings], name: str) -> Any:
    """Return the type of a section's key, with its bounds."""
    field = section.model_fields[name]
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def wrong(key: str, kind: Any, domain: Any) -> str:
    """Return why a setting of this type cannot have each value of a domain, or a value alone."""
    taken: TypeAdapter[Any] = TypeAdapter(kind)
    for value in ends(domain):
        try:
            taken.validate_python(value)
        except ValidationError as error:
            found = error.errors()[0]
            return f"{key} {wanted(found['type'], found['msg'])}, but may become {shown(value)}"
    if isinstance(domain, FloatDomain) and taken.json_schema().get("type") == "integer":
        return f"{key} must be a whole number; give it `kind: int` in place of float"
    return ""


def ends(domain: Any) -> list[Any]:
    """Return a domain's bounds, or all its values; of what is no domain, itself."""
    kind = getattr(domain, "kind", None)
    if isinstance(domain, SpaceWithin) or kind is None:
        return [domain]
    if kind == "bool":
        return [False, True]
    if kind == "constant":
        return [domain.value]
    return [domain.low, domain.high] if kind in ("float", "int") else list(domain.values)
