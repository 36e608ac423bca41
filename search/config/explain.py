"""Turn pydantic's findings into messages for the writer of a run's file."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from shoal.policies.rules import EXPLOITS, EXPLORES
from shoal.policies.space import DOMAINS
from shoal.search import notation
from shoal.search.config.kinds import ADAPTER, OBJECTIVE, SAMPLER
from shoal.search.config.rows import COLUMN_KINDS, FORMATS
from shoal.search.config.score import RANKINGS
from shoal.search.config.sections_of import Sections
from shoal.search.config.tracking import TRACKERS
from shoal.search.config.trainable import BUILT_IN
from shoal.search.errors import nearest

RULES = (
    ["population", "exploit"],
    ["population", "explore"],
    ["sampling", "rule"],
    ["mixing", "policy"],
    ["model", "adapter"],
    ["selection", "policy"],
    ["data", "format"],
)
COLUMNS = ["data", "columns"]  # below it stands a name, and then the kind
SCORE_LIST = ["selection", "scores"]  # below it stands a number, and then the kind


def mixer_kinds() -> Mapping[str, type]:
    from shoal.policies.mixers.rules import MIXERS

    return MIXERS


def selector_kinds() -> Mapping[str, type]:
    from shoal.policies.selection.rules import SELECTORS

    return SELECTORS


def selection_scores() -> Mapping[str, type]:
    from shoal.search.config.selection import SCORES

    return SCORES


KINDS_BY_KEY: dict[str, Iterable[str]] = {
    "model.adapter": ADAPTER,
    "population.exploit": EXPLOITS,
    "population.explore": EXPLORES,
    "sampling.rule": SAMPLER,
    "mixing.policy": Sections(mixer_kinds),
    "selection.policy": Sections(selector_kinds),
    "selection.scores": Sections(selection_scores),
    "data.format": FORMATS,
    "objective": OBJECTIVE,
    "score": RANKINGS,
}


def explain(detail: ErrorDetails) -> list[str]:
    """Return one of pydantic's findings as messages for the writer of the file."""
    place = written([str(part) for part in detail["loc"]])
    kind, key, value = detail["type"], ".".join(place) or "file", detail["input"]
    if kind == "extra_forbidden":
        return [f"{key}: unknown key{nearest(place[-1], known_keys(detail['loc'][:-1]))}"]
    if kind == "missing":
        return [f"{key}: is required"]
    if kind == "value_error":
        said = notation.short(str(detail["ctx"]["error"]), LONGEST)
        return [told_at(key, said, value if isinstance(value, dict) else {})]
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        # a place in a list, such as selection.scores.0, is one of the list's
        kinds = KINDS_BY_KEY.get(key.rstrip("0123456789").rstrip("."), DOMAINS)
        kinds = COLUMN_KINDS if place[:2] == COLUMNS else kinds
        kinds = TRACKERS if place[0] == "track" else kinds
        value = {"kind": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            return [f"{key}: {MAPPING}, got {as_yaml(value)}"]
        if key == "objective":
            return [f"{key}.kind: no such objective{nearest(str(value.get('kind')), kinds)}"]
        return [f"{key}.kind: must be one of {', '.join(kinds)}, got {as_yaml(value.get('kind'))}"]
    if kind == "string_pattern_mismatch" and key == "trainable":
        return [
            f"{key}: must be {', '.join(BUILT_IN)}, or a class of your own as module:Class, got "
            f"{as_yaml(value)}"
        ]
    return [f"{key}: {requirement(kind, detail['msg'])}, got {as_yaml(value)}{ADVICE.get(kind, '')}"]


def told_at(place: str, said: str, keys: Collection[str]) -> str:
    """Return a message about a place; if it begins with one of the place's keys, about that key."""
    name, _, rest = said.partition(" ")
    return f"{place}.{name}: {rest}" if name in keys and rest.startswith("must") else f"{place}: {said}"


LONGEST = 400  # letters of a message that repeats what the file has
MAPPING, LIST = "must be a mapping of keys", "must be a list"
WANTED = {
    "string_pattern_mismatch": "must be letters, digits, - and _, and begin with one of the first two",
    "model_attributes_type": MAPPING,
    "model_type": MAPPING,
    "dict_type": MAPPING,
    "list_type": LIST,
    "tuple_type": LIST,
    "string_type": "must be a word",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
}
ADVICE = {"string_type": "; if it is meant as a word, put it in quotes"}


def requirement(kind: str, said: str) -> str:
    """Return what must hold, such as `must be a number`, from the kind and message of pydantic's finding."""
    return WANTED.get(kind) or f"must be {said.removeprefix('Input should be ')}"


def as_yaml(value: Any) -> str:
    """Return a value of the file as YAML writes it, in one short line; words are in quotes."""
    if value is None or isinstance(value, bool | int | float):
        return notation.short(notation.write_yaml(value).removesuffix("...\n"))
    return notation.short(repr(value))


def written(place: list[str]) -> list[str]:
    """Return the keys as the file has them: pydantic adds the kind by which it chose a section."""
    if place[:1] == ["objective"]:
        return [place[0], *place[2:]]
    if place[:1] == ["track"]:
        return place[:2] + place[3:]
    if place[:1] == ["score"]:
        return place[:1] + place[2:]
    if place[:2] in RULES:
        return place[:2] + place[3:]
    if place[:2] in (COLUMNS, SCORE_LIST):
        return place[:3] + place[4:]
    if place[:1] != ["hyperparameters"]:
        return place
    keys = place[:2]
    while place[2:3] == ["space"]:
        keys, place = keys + place[3:4], place[2:]
    return keys + place[3:]


def known_keys(place: Sequence[int | str]) -> list[str]:
    """Return the keys that may stand at this place of the file."""
    from shoal.search.config.whole_schema import whole_schema

    schema = whole_schema()
    here: dict[str, Any] = schema
    for part in place:
        here = step(schema, here, str(part))
    here = resolved(schema, here)
    return list(here.get("properties", {}))


def step(schema: dict[str, Any], here: dict[str, Any], part: str) -> dict[str, Any]:
    here = resolved(schema, here)
    if "oneOf" in here:
        options = [resolved(schema, option) for option in here["oneOf"]]
        kinds = [option.get("properties", {}).get("kind", {}).get("const", "space") for option in options]
        return dict(zip(kinds, options, strict=True))[part]
    if "items" in here:
        return step(schema, here["items"], part) if not part.isdigit() else here["items"]
    if part in here.get("properties", {}):
        return here["properties"][part]
    inner = here.get("additionalProperties", {})
    return inner if isinstance(inner, dict) else {}


def resolved(schema: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in here or "anyOf" in here:
        # an optional section is `anyOf` the section and null: take the section
        here = here["anyOf"][0] if "anyOf" in here else schema["$defs"][here["$ref"].rpartition("/")[2]]
    return here
