"""Make one checked `Run` of a YAML file and `key=value` changes; every mistake is reported with its place."""

import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import yaml
from pydantic import ValidationError

from shoal.search import notation
from shoal.search.checks.idle import idle, idle_keys
from shoal.search.checks.run import problems as problems_of
from shoal.search.config.explain import KINDS_BY_KEY, explain
from shoal.search.config.fitting import with_fitting_defaults
from shoal.search.config.places import absolute, escaped, with_places
from shoal.search.config.run import RUN_FORMAT, Run
from shoal.search.config.sections import Population
from shoal.search.config.trainable import FACTS, Declared
from shoal.search.errors import InputError
from shoal.search.members.declarations import check_settings, declared_by
from shoal.search.members.own_class import own_class, refuse_hiding

# the rules that hold where a file names none; a change may set a number of theirs alone
DEFAULT_KINDS = {f"population.{rule}": getattr(Population(), rule).kind for rule in ("exploit", "explore")}
DEFAULT_KINDS["score"] = "loss"


def load_run(path: str, changes: Sequence[str] = ()) -> Run:
    """Return the run of a YAML file with `population.members=4`-like changes made to it.

    Raises InputError that names the file, the key path, the value and what is allowed.
    """
    return run_of(load_values(path, changes), path, os.path.dirname(os.path.abspath(path)))


def run_of(values: dict[str, Any], path: str, folder: str) -> Run:
    """Return the run of a file's values; a class of the user's own is looked for in `folder`."""
    refuse_hiding()
    run = checked_run(values, path, partial(with_declared, place=path, folder=folder))
    if run.has_own_code:
        run = run.model_copy(update={"code": run.code or folder})
    refuse(path, idle(run))  # only here: a run directory's own file holds all keys, also unused ones
    check_opened(run)
    return run


def check_opened(run: Run) -> None:
    """Raise InputError if a model or a tokenizer that the run begins with cannot be used.

    What looks at them is imported where there are some, since it takes longer than all other checks.
    """
    if run.kind == "distill":
        from shoal.search.distill.card import check_teacher

        check_teacher(run)
    if run.pretrained:
        from shoal.search.models import check_pretrained

        check_pretrained(run)
    if run.reads_tokens:
        check_tokenizer(run)
    if run.mixing is not None and run.mixing.reference is not None:
        from shoal.search.exported import check_reference

        check_reference(run)


def with_declared(run: Run, place: str, folder: str) -> Run:
    """Return the run with what its own class declares; it is looked for in `code`, or in the folder."""
    if not run.own:
        return run
    found = own_class(run.trainable, absolute("code", run.code) if run.code else folder, draft=True)
    declared = declared_by(found)
    facts = FACTS if declared.takes and run.rows != "columns" else ()
    refuse(place, [problem] if (problem := check_settings(found, run.settings, facts)) else [])
    return run.model_copy(update={"declared": Declared(**asdict(declared))})


def check_tokenizer(run: Run) -> None:
    """Raise InputError if the tokenizer that a run reads its rows with cannot be used."""
    from shoal.search.tokenizers import open_chat_template, open_tokenizer

    open_tokenizer(run.data.tokenizer)
    if run.data.format is not None and run.data.format.kind == "chat":
        open_chat_template(run.data.tokenizer)


def left_to_do(run: Run) -> str:
    """Return what the user's own class still lacks to train, or nothing."""
    try:
        if run.own:
            own_class(run.trainable, run.code)
    except InputError as error:
        return str(error)
    return ""


def load_values(path: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Return a YAML file's values with the changes made; they are not checked yet."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}.") from error
    values = parse(text, path)
    for change in changes:
        make_change(values, change)
    return values


def parse(text: str, path: str) -> dict[str, Any]:
    values = notation.read_yaml(text, path)
    if values is None:
        raise InputError(f"{path}: must be a mapping of keys such as `name: demo`, but is empty.")
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else f"`{notation.short(str(values))}`"
        raise InputError(f"{path}: must be a mapping of keys such as `name: demo`, got {kind}.")
    return values


def make_change(values: dict[str, Any], change: str) -> None:
    name, sign, text = change.partition("=")
    said = notation.short(change)
    if not sign or not all(name.split(".")):
        raise InputError(f"{said}: a change must be written key=value, such as population.members=4.")
    try:
        value = notation.read_change(text)
    except yaml.YAMLError as error:
        quoted = f"{name}={json.dumps(notation.short(text, 40), ensure_ascii=False)}"
        raise InputError(
            f"{said}: {notation.what(error)}. As a word it is written {shlex.quote(quoted)}."
        ) from error
    set_key(values, name, value, said)


def set_key(values: dict[str, Any], name: str, value: Any, said: str) -> None:
    """Set the key `name`, such as population.members, in a file's values; `said` begins the error's message."""
    *parents, last = name.split(".")
    for place, parent in enumerate(parents, start=1):
        key, found = ".".join(parents[:place]), values.get(parent)
        if found is None:  # an empty section counts as a missing one
            values[parent] = {"kind": DEFAULT_KINDS[key]} if key in DEFAULT_KINDS else {}
        elif key in KINDS_BY_KEY and isinstance(found, str):
            values[parent] = {"kind": found}
        values = values[parent]
        if not isinstance(values, dict):
            kind = "a list" if isinstance(values, list) else "a value"
            raise InputError(
                f"{said}: {key} holds {kind}, so nothing can be set inside it; give it as a whole."
            )
    values[last] = value


def refuse(path: str, problems: Sequence[str], cause: Exception | None = None) -> None:
    """Raise InputError with a line for each problem of a file, if there are any."""
    if problems:
        raise InputError("\n".join(f"{path}: {problem}" for problem in problems)) from cause


def checked_run(values: dict[str, Any], path: str, declared: Callable[[Run], Run] = lambda run: run) -> Run:
    """Return the run of a file's values; `declared` adds what the class of its members says of itself."""
    version = values.get("format", RUN_FORMAT)
    if isinstance(version, int) and version != RUN_FORMAT:
        age = "a newer" if version > RUN_FORMAT else "an older"
        raise InputError(
            f"{path}: is of format {version}, written by {age} Shoal; this one reads {RUN_FORMAT}."
        )
    try:
        run = with_fitting_defaults(Run.model_validate(values))
    except ValidationError as error:
        refuse(path, [problem for detail in error.errors() for problem in explain(detail)], error)
    run = declared(run)
    refuse(path, problems_of(run))
    return resolve(run)


def resolve(run: Run) -> Run:
    """Return the run with its places made absolute, since workers have another working folder."""
    own = "tokenizer" in run.data.model_fields_set
    run = with_places(run.model_copy(update={"directory": run.directory or f"runs/{run.name}"}), absolute)
    if run.distill is not None and not own:
        from shoal.search.distill.card import teacher_folder

        folder = teacher_folder(run.distill.teacher)
    elif run.pretrained and not own and (run.model.path or run.model.begin):
        from shoal.search.models import tokenizer_folder

        folder = tokenizer_folder(run)
    else:
        return run
    data = run.data.model_copy(update={"tokenizer": folder})
    return run.model_copy(update={"data": data})


def dump(run: Run) -> str:
    """Return the run as YAML, from which `checked_run` makes an equal run."""
    return notation.write_yaml(with_places(run, escaped).model_dump(exclude=idle_keys(run)))
