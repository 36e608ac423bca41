"""Check each value that a hyperparameter may take as if the file gave it as a constant."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from shoal.search.config.explain import as_yaml, requirement
from shoal.search.config.kinds import SpaceWithin
from shoal.search.config.run import Run
from shoal.search.config.sections import Model, Training
from shoal.search.config.sections_of import Real, Settings
from shoal.search.config.trainable import SETTINGS

SPACES = ("mixing", "sampling", "objective")  # under these names stand several numbers, which others check


def check_values(run: Run) -> str:
    """Return which value of a domain, a schedule or a start is not allowed for its setting, or nothing."""
    if run.own and not run.described.network:
        return ""  # only the class knows its hyperparameters
    for place, name, domain in each_hyperparameter(run):
        if problem := check_value(run, name, domain):
            return f"{place}.{name}: {problem}"
    return ""


def each_hyperparameter(run: Run) -> Iterator[tuple[str, str, Any]]:
    """Yield place, name and the domain or value of each hyperparameter, except those of a mixing policy."""
    given: dict[str, Mapping[str, Any]] = {"hyperparameters": run.hyperparameters}
    given |= {f"schedule.{place}": entry.hyperparameters for place, entry in enumerate(run.schedule)}
    given |= {f"starts.{place}": entry.hyperparameters for place, entry in enumerate(run.starts)}
    fixed = [(name, value) for name, values in run.population.parts.items() for value in values]
    yield from (("population.parts", name, value) for name, value in fixed if name not in SPACES)
    for place, values in given.items():
        yield from ((place, name, value) for name, value in values.items() if name not in SPACES)


def check_value(run: Run, name: str, domain: Any) -> str:
    if run.trainable == "toy":
        return wrong("a parameter of the toy", Real, domain)
    if name in run.described.searched and name in Model.model_fields:
        return wrong(f"model.{name}", setting(Model, name), domain)
    if name in run.described.searched:
        return wrong(f"the constant {name}", Real, domain) or settings_refuse(run, name, domain)
    if run.own and (name not in Training.model_fields or isinstance(domain, SpaceWithin)):
        return ""  # only the class knows it
    if name in Training.model_fields:
        problem = wrong(f"training.{name}", setting(Training, name), domain)
        return problem or refused(
            f"training.{name}", lambda value: Training.model_validate({name: value}), domain
        )
    if run.kind != "distill":
        return ""  # check_hyperparameters says it
    from shoal.search.config.distill import Distill

    return wrong(f"distill.{name}", setting(Distill, name), domain) if name in Distill.model_fields else ""


def settings_refuse(run: Run, name: str, domain: Any) -> str:
    """Return which value of a searched constant a built-in class refuses; one's own class does it later."""
    section = SETTINGS.get(run.trainable)
    if section is None:
        return ""
    return refused(f"settings.{name}", lambda value: section.model_validate({name: value}), domain)


def setting(section: type[Settings], name: str) -> Any:
    """Return the type of a section's key, with its bounds."""
    field = section.model_fields[name]
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def wrong(key: str, kind: Any, domain: Any) -> str:
    """Return why a setting of this type cannot have some value of a domain, or the one value given."""
    taken: TypeAdapter[Any] = TypeAdapter(kind)
    if problem := refused(key, taken.validate_python, domain):
        return problem
    if getattr(domain, "kind", "") == "float" and taken.json_schema().get("type") == "integer":
        return f"{key} must be a whole number; give it `kind: int` in place of float"
    return ""


def refused(key: str, check: Callable[[Any], Any], domain: Any) -> str:
    for value in ends(domain):
        try:
            check(value)
        except ValidationError as error:
            return f"{key} {stated_requirement(error.errors()[0])}, but may become {as_yaml(value)}"
    return ""


def stated_requirement(found: ErrorDetails) -> str:
    """Return what must hold according to pydantic's finding, such as `must be at least 0`."""
    if found["type"] != "value_error":
        return requirement(found["type"], found["msg"])
    said = str(found["ctx"]["error"]).partition(", but got")[0]
    return said[said.index("must") :] if "must" in said else said


def ends(domain: Any) -> list[Any]:
    """Return a domain's bounds or all its values; a plain value is returned alone."""
    kind = getattr(domain, "kind", None)
    if isinstance(domain, SpaceWithin) or kind is None:
        return [domain]
    if kind == "bool":
        return [False, True]
    if kind == "constant":
        return [domain.value]
    return [domain.low, domain.high] if kind in ("float", "int") else list(domain.values)
