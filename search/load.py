"""A YAML file, and `key=value` changes to it, to one checked `Run`; every mistake with its place."""

import json
import os
import shlex
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from search import notation
from search.checks.run import problems as problems_of
from search.config.distill import Distill
from search.config.explain import explain
from search.config.run import FORMAT, Run
from search.distill.card import check_teacher, teacher_folder
from search.errors import InputError
from search.exported import check_reference
from search.members.own_class import own_class
from trainables.tokenizer import TOKENIZERS


def load_run(path: str, changes: Sequence[str] = ()) -> Run:
    """Return the run of a YAML file with `population.members=4`-like changes made to it.

    Raises InputError that names the file, the key path, the value and what is allowed.
    """
    run = check(load_values(path, changes), path)
    if ":" in run.trainable:
        own_class(run.trainable)
    if run.kind == "distill":
        check_teacher(run)
    check_reference(run)
    return run


def load_values(path: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Return a YAML file's values with the changes made, not checked yet."""
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
    values = notation.read(text, path)
    if values is None:
        raise InputError(f"{path}: must be a mapping of keys such as `name: demo`, but is empty.")
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else f"`{notation.short(str(values))}`"
        raise InputError(f"{path}: must be a mapping of keys such as `name: demo`, got {kind}.")
    return values


def make_change(values: dict[str, Any], change: str) -> None:
    name, sign, text = change.partition("=")
    said = notation.short(change)
    *parents, last = name.split(".")
    if not sign or not all([*parents, last]):
        raise InputError(f"{said}: a change must be written key=value, such as population.members=4.")
    for place, parent in enumerate(parents, start=1):
        if values.get(parent) is None:  # a section that the file names and leaves empty is as good as none
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            kind, key = "a list" if isinstance(values, list) else "a value", ".".join(parents[:place])
            raise InputError(
                f"{said}: {key} holds {kind}, so nothing can be set inside it; give it as a whole."
            )
    try:
        values[last] = notation.read_change(text)
    except yaml.YAMLError as error:
        quoted = f"{name}={json.dumps(notation.short(text, 40), ensure_ascii=False)}"
        raise InputError(
            f"{said}: {notation.what(error)}. As a word it is written {shlex.quote(quoted)}."
        ) from error


def check(values: dict[str, Any], path: str) -> Run:
    version = values.get("format", FORMAT)
    if isinstance(version, int) and version != FORMAT:
        age = "a newer" if version > FORMAT else "an older"
        raise InputError(f"{path}: is of format {version}, written by {age} Shoal; this one reads {FORMAT}.")
    try:
        run = Run.model_validate(values)
    except ValidationError as error:
        problems = [problem for detail in error.errors() for problem in explain(detail)]
        raise InputError("\n".join(f"{path}: {problem}" for problem in problems)) from error
    if wrong := problems_of(run):
        raise InputError("\n".join(f"{path}: {problem}" for problem in wrong))
    return resolve(run)


def resolve(run: Run) -> Run:
    """Return the run with its places made absolute, since workers have another working folder."""
    corpus = absolute(run.data.corpus)
    groups = {
        name: source if source == "installed" else absolute(source) for name, source in run.data.groups.items()
    }
    tokenizer = run.data.tokenizer
    if run.distill is not None and "tokenizer" not in run.data.model_fields_set:
        tokenizer = teacher_folder(run.distill.teacher)
    elif tokenizer not in TOKENIZERS:
        tokenizer = absolute(tokenizer)
    data = run.data.model_copy(update={"corpus": corpus, "groups": groups, "tokenizer": tokenizer})
    mixing = run.mixing
    if mixing is not None and mixing.reference is not None:
        mixing = mixing.model_copy(update={"reference": absolute(mixing.reference)})
    changes = {"directory": absolute(run.directory or f"runs/{run.name}"), "data": data, "mixing": mixing}
    return run.model_copy(update=changes | ({"distill": at_home(run.distill)} if run.distill else {}))


def at_home(distill: Distill) -> Distill:
    """Return the section with its files and folders made absolute."""
    search, proxy = distill.search, distill.search.proxy
    if proxy is not None:
        files = {"train": absolute(proxy.train), "test": absolute(proxy.test)}
        search = search.model_copy(update={"proxy": proxy.model_copy(update=files)})
    folders = [folder if folder.startswith("package:") else absolute(folder) for folder in distill.teachers]
    return distill.model_copy(update={"teacher": folders[0], "ensemble": folders[1:], "search": search})


def absolute(place: str) -> str:
    return place if "://" in place else os.path.abspath(os.path.expanduser(place))


def dump(run: Run) -> str:
    """Return the run as text, of which `check` makes an equal run again."""
    return notation.write(run.model_dump())
