"""The constants of a class: it annotates them, `width: int = 64`; a run's file sets them under `settings:`."""

from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any


def constants_of(of: type, base: type) -> dict[str, Any]:
    """Return the names that a class annotates, and those below `base` that it inherits from, with defaults.

    A name without a default has MISSING. Names of `base`, private ones and class variables are no constants.
    """
    below = of.__mro__[: of.__mro__.index(base)]
    hints = {name: hint for each in reversed(below) for name, hint in annotations_of(each).items()}
    names = [name for name, hint in hints.items() if name[0] != "_" and "ClassVar" not in str(hint)]
    return {name: getattr(of, name, MISSING) for name in names if not hasattr(base, name)}


def annotations_of(of: type) -> dict[str, Any]:
    found: dict[str, Any] = vars(of).get("__annotations__", {})
    return found


def set_constants(owner: Any, known: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Make the given constants attributes; raises TypeError where one is unknown."""
    for name, value in given.items():
        if name not in known:
            said = ", ".join(known) or "none"
            raise TypeError(f"{type(owner).__name__} has no constant `{name}`; it has {said}.")
        setattr(owner, name, value)
