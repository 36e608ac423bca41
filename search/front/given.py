"""The run that Python code asks for: a file, a mapping as a file would have it, or a checked run."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.load import dump, load_values, make_change, parse, run_of, set_key

Given = str | os.PathLike[str] | Mapping[str, Any] | Run
Changes = Mapping[str, Any] | Sequence[str]
SETTINGS_GIVEN = "settings"  # stands for the file's name in messages about a mapping


def run_given(given: Given, changes: Changes = ()) -> Run:
    """Return the checked run, with changes such as `{"population.members": 4}` made to it.

    In a mapping `trainable` may be a class. Places in a `Run` are taken as they are: a dollar sign begins no
    variable there. Raises InputError as `load_run` does.
    """
    values, place, folder = values_of(given)
    if isinstance(changes, Mapping):
        for name, value in changes.items():
            set_key(values, name, plain(value), name)
    else:
        for change in changes:
            make_change(values, change)
    trainable = values.get("trainable", "decoder")
    if isinstance(trainable, str):
        return run_of(values, place, folder)
    from shoal.search.front.shipped import named, with_code  # which imports Ray

    if values.get("code"):
        raise InputError(f"{place}: code: a class object needs no folder; leave it out")
    return with_code(run_of({**values, "trainable": named(trainable)}, place, folder))


def values_of(given: Given) -> tuple[dict[str, Any], str, str]:
    """Return the values, the name of their place in messages, and the folder of a `module:Class`."""
    if isinstance(given, Run):
        return parse(dump(given), SETTINGS_GIVEN), SETTINGS_GIVEN, given.code or os.getcwd()
    if isinstance(given, Mapping):
        return plain(given), SETTINGS_GIVEN, os.getcwd()
    path = os.fspath(given)
    return load_values(path), path, os.path.dirname(os.path.abspath(path))


def plain(value: Any) -> Any:
    """Return a value as a file would have it: paths are words, and nothing is shared with what was given."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value
