"""A reference of all keys of a run's file: `shoal explain`, and `docs/keys.md`."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from shoal.search.config.explain import resolved
from shoal.search.errors import InputError, nearest
from shoal.search.front.schema import kind_word, plain_schema

NAME = "NAME"  # stands in a path for a name of the user's own


class KeyEntry(NamedTuple):
    """One key, with what it takes in words."""

    path: str  # such as population.exploit.fraction
    kind: str  # the kind of rule or domain that it sets; empty where it belongs to none
    takes: str
    default: str
    meaning: str

    @property
    def last(self) -> str:
        return self.path.rpartition(".")[2]


def all_keys() -> list[KeyEntry]:
    """Return every key, a section before what is in it."""
    schema = plain_schema()
    return list(keys_in(schema, schema, ""))


def keys_in(schema: dict[str, Any], here: dict[str, Any], place: str, kind: str = "") -> Iterator[KeyEntry]:
    """Yield the keys of a section, and below each those that it holds itself."""
    required = here.get("required", [])
    for name, each in here.get("properties", {}).items():
        if "const" in each and name == "kind":
            continue
        path = f"{place}.{name}" if place else name
        default = "required" if name in required else as_written(each.get("default"))
        yield KeyEntry(path, kind, takes(schema, each), default, each.get("description", ""))
        yield from keys_below(schema, resolved(schema, each), path)


def keys_below(schema: dict[str, Any], here: dict[str, Any], path: str) -> Iterator[KeyEntry]:
    for option in here.get("oneOf", []):
        section = resolved(schema, option)
        if kind := kind_word(section):
            yield KeyEntry(f"{path}.kind", kind, kind, "", section.get("description", ""))
            yield from keys_in(schema, section, path, kind)
    within = here.get("additionalProperties")
    inner = here.get("items") or (within if isinstance(within, dict) else None)
    if inner:
        yield from keys_below(schema, resolved(schema, inner), f"{path}.{NAME}" if within else f"{path}.0")
    yield from keys_in(schema, here, path) if "oneOf" not in here else ()


def takes(schema: dict[str, Any], each: dict[str, Any]) -> str:
    """Return what a key takes, such as `a whole number from 1`."""
    if "anyOf" in each:
        parts = [takes(schema, part) for part in each["anyOf"]]
        return " or ".join(part for part in dict.fromkeys(parts) if part)
    here = resolved(schema, each)
    if "oneOf" in here:
        kinds = [kind_word(resolved(schema, option)) for option in here["oneOf"]]
        return f"one of {', '.join(kind for kind in kinds if kind)}"
    if "enum" in here or "const" in here:
        return ", ".join(map(as_written, here.get("enum", [here.get("const")])))
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "a word",
        "null": "null",
        "object": "keys" if "properties" in here else "names, each with a value",
        "array": "a list",
    }
    return words.get(here.get("type", ""), "any value") + bounds(here)


def bounds(here: dict[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    known = {word: here[name] for name, word in words.items() if name in here}
    return " and".join(f" {word} {value:g}" for word, value in known.items())


def as_written(value: Any) -> str:
    """Return a value as a file writes it; sections have their own keys, and show none."""
    if isinstance(value, dict):
        return str(value["kind"]) if "kind" in value else ""
    return "" if value in (None, []) else value if isinstance(value, str) else json.dumps(value)


def explain_key(name: str) -> list[str]:
    """Return lines about a key, or about all keys of that last name; raises InputError for an unknown one."""
    known = all_keys()
    found = [key for key in known if key.path == name and not key.path.endswith(".kind")]
    found = found or [key for key in known if f".{key.path}".endswith(f".{name}")]
    searched = name.removeprefix("hyperparameters.")
    if not found and searched != name:  # a searched number is explained as the setting that it replaces
        settings = ("hyperparameters", f"training.{searched}", f"model.{searched}")
        found = [key for key in known if key.path in settings]
    # errors name a loss, or a score, of a list by its kind: objective.masked.share
    found = found or [key for key in known if key.kind and by_kind(key) == name]
    if not found:
        raise InputError(f"{name}: no such key{nearest(name, [key.path for key in known])}")
    lines = [line for key in found for line in lines_of(key)]
    return [*lines, *lines_below(found[0], known)] if len(found) == 1 else lines


def by_kind(key: KeyEntry) -> str:
    """Return the path of a key in a list with its kind in place of a number."""
    above, _, last = key.path.rpartition(".")
    return f"{above.removesuffix('.0')}.{key.kind}" + (f".{last}" if last != "kind" else "")


def lines_of(key: KeyEntry) -> list[str]:
    of = f" (of {key.kind})" if key.kind else ""
    default = f"; default {key.default}" if key.default not in ("", "required") else f"; {key.default}"
    return [f"{key.path}{of}: {key.meaning}", f"  {key.takes}{default.rstrip('; ')}"]


def lines_below(above: KeyEntry, known: list[KeyEntry]) -> list[str]:
    """Return a line for each key directly below, and for each kind."""
    places = (above.path, f"{above.path}.{NAME}", f"{above.path}.0")
    inner = [key for key in known if key.path.rpartition(".")[0] in places]
    indent = {key: "  " if key.last == "kind" or not key.kind else "    " for key in inner}
    return [f"{indent[key]}{shown_name(key)}: {key.meaning}" for key in inner]


def shown_name(key: KeyEntry) -> str:
    return key.kind if key.last == "kind" else key.last


def reference_page() -> str:
    """Return `docs/keys.md`."""
    known = all_keys()
    tops = [key for key in known if "." not in key.path]
    page = [HEAD, table(tops)]
    for top in tops:
        below = [key for key in known if key.path.startswith(f"{top.path}.")]
        if below:
            page += [f"## {top.path}\n", f"{top.meaning[:1].upper()}{top.meaning[1:]}.\n", *tables(below)]
    return "\n".join(page)


def tables(keys: list[KeyEntry]) -> list[str]:
    """Return the table of a section, and one for each choice by kind."""
    plain = [key for key in keys if not key.kind]
    found = [table(plain)] if plain else []
    for path in dict.fromkeys(key.path.rpartition(".")[0] for key in keys if key.kind):
        chosen = [key for key in keys if key.kind and key.path.rpartition(".")[0] == path]
        rows = [kind_row(key) for key in chosen]
        found += [f"### {path}\n"] if "." in path else []  # a key at the top has its heading already
        found += ["| kind | key | takes | default | meaning |\n|---|---|---|---|---|"]
        found += [*rows, ""]
    return found


def table(keys: list[KeyEntry]) -> str:
    rows = [f"| `{key.path}` | {cell(key.takes)} | {cell(key.default)} | {cell(key.meaning)} |" for key in keys]
    return "\n".join(["| key | takes | default | meaning |", "|---|---|---|---|", *rows, ""])


def kind_row(key: KeyEntry) -> str:
    if key.last == "kind":
        return f"| **`{key.kind}`** | | | | {cell(key.meaning)} |"
    return f"| | `{key.last}` | {cell(key.takes)} | {cell(key.default)} | {cell(key.meaning)} |"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


HEAD = """# Every key of a run's file

`shoal explain --all` writes this page. `shoal explain KEY` prints one entry. `shoal schema` prints the same for
editors, as a JSON schema. [run-file.md](run-file.md) is the guide to it.
"""
