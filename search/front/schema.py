"""The JSON schema of a run's file, with the meaning of each key."""

import inspect
from typing import Any

from pydantic.json_schema import JsonSchemaValue

from shoal.search.config.meanings import meanings_of
from shoal.search.config.whole_schema import Whole, whole_schema

BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
BEYOND = 2**60  # larger bounds are those of int64, which nobody needs to know


class Described(Whole):
    """Adds to each key its meaning, and to each kind of a rule or domain what its class says first."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().model_schema(schema)
        section = schema["cls"]
        if said := first_sentence(getattr(section, "made_of", section)):
            found["description"] = said
        told = meanings_of(section) if "properties" in found else {}
        for name, key in found.get("properties", {}).items():
            if name in told:
                key["description"] = told[name]
        return found


def first_sentence(written: type) -> str:
    """Return the first line of a class's own docstring."""
    return inspect.cleandoc(written.__dict__.get("__doc__") or "").partition("\n\n")[0].replace("\n", " ")


def plain_schema() -> dict[str, Any]:
    """Return the schema as pydantic has it: a choice by `kind` is `oneOf` its sections."""
    found: dict[str, Any] = with_bounds(whole_schema(Described))
    return found


def with_bounds(value: Any) -> Any:
    """Return the schema with its bounds as JSON schema names them; those of int64 are left out.

    Pydantic leaves the inner bounds of a type that is bounded twice, and names the outer ones by itself.
    """
    if isinstance(value, list):
        return [with_bounds(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {name: with_bounds(each) for name, each in value.items()}
    if value.get("type") in ("integer", "number"):
        outer = {BOUNDS[name]: found.pop(name) for name in BOUNDS if name in found}
        known = {name: bound for name, bound in {**found, **outer}.items() if name in BOUNDS.values()}
        plain = {name: each for name, each in found.items() if name not in known}
        return plain | {name: bound for name, bound in known.items() if abs(bound) < BEYOND}
    return found


def run_schema() -> dict[str, Any]:
    """Return the schema of what a file may hold: a word alone stands for a kind by its defaults."""
    found = plain_schema()
    whole: dict[str, Any] = with_words(found, found["$defs"])
    keys = {
        name: alone_or_listed(key) if name == "objective" else key for name, key in whole["properties"].items()
    }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**head, **whole, "properties": keys, "title": "A run of Shoal"}


def alone_or_listed(key: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a list of which a file may give one entry alone."""
    about: dict[str, Any] = {name: key[name] for name in ("title", "description", "default") if name in key}
    return {**about, "anyOf": [*key["items"]["anyOf"], {"type": "array", "items": key["items"]}]}


def with_words(value: Any, defined: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [with_words(each, defined) for each in value]
    if not isinstance(value, dict):
        return value
    found = {name: with_words(each, defined) for name, each in value.items()}
    options = found.pop("oneOf", None)
    if options is None:
        return found
    sections = [defined[option["$ref"].rpartition("/")[2]] for option in options]
    words = [kind_word(each) for each in sections if each.get("required") == ["kind"]]
    # not oneOf: a domain that has its word alone, such as bool, would also be a space of one name
    return {**found, "anyOf": [*([{"enum": words}] if words else []), *options]}


def kind_word(section: dict[str, Any]) -> str:
    """Return the word by which a file chooses a section, or nothing for a space within the space."""
    return str(section.get("properties", {}).get("kind", {}).get("const", ""))
