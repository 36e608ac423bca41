"""What a class of the user's own says of itself: the rows that it takes, its losses, its constants."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from typing import Any

from shoal.search.config.rows import ROW_KINDS
from shoal.search.config.trainable import TRAINING_HYPERPARAMETERS, Trainable
from shoal.search.errors import nearest
from shoal.trainables.settings import PRICED

NETWORK = "shoal.trainables.network"


def made_with(found: Any) -> tuple[str, ...]:
    """Return the arguments that members are made with: a class that takes rows gets batches of them."""
    rows = ("batches", "held_out") if getattr(found, "takes", ()) else ()
    return "recipe", "hyperparameters", *rows, "seed", "device"


def network_of(found: Any) -> Any:
    """Return Network, which is not imported for that, if a class inherits from it."""
    bases = found.__mro__ if inspect.isclass(found) else ()
    return next((base for base in bases if base.__module__ == NETWORK and base.__name__ == "Network"), None)


def undeclared(found: Any) -> str:
    """Return what is wrong with what a class says of itself."""
    takes, network = getattr(found, "takes", ()), network_of(found)
    if isinstance(takes, str) or not set(takes) <= set(ROW_KINDS):
        known = ", ".join(ROW_KINDS)
        return f"must take rows of {known} as a set, such as {{'tokens'}}, but has takes = {takes!r}"
    if network is None or found.score is not network.score or (takes and found.by_row):
        return ""
    return (
        "must have the method score(module, rows), or say `by_row = True` and which rows it `takes`: then its "
        "score is minus its loss"
    )


def constants_in(found: Any) -> dict[str, Any]:
    """Return the names that `settings:` may give to a class or function, with their defaults or MISSING."""
    network = network_of(found)
    if network is not None and found.__init__ is network.__init__:
        return dict(found.constants())
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except (ValueError, TypeError):
        return {}  # Python itself does not know
    kinds = inspect.Parameter
    positional = [each for each in parameters if each.kind is kinds.POSITIONAL_OR_KEYWORD]
    free = [
        *positional[len(made_with(found)) :],
        *(each for each in parameters if each.kind is kinds.KEYWORD_ONLY),
    ]
    own = {each.name: MISSING if each.default is kinds.empty else each.default for each in free}
    passed_on = network is not None and any(each.kind is kinds.VAR_KEYWORD for each in parameters)
    return own | (dict(found.constants()) if passed_on else {})


def check_settings(found: Any, settings: Mapping[str, Any], facts: Iterable[str] = ()) -> str:
    """Return what is wrong with the constants that a file gives to a class; a run itself gives the `facts`."""
    known, named = constants_in(found), found.__name__
    for name in settings:
        if name not in known:
            allowed = nearest(name, known) if known else ", which takes none"
            return f"settings.{name}: no constant of {named}{allowed}"
    for name, default in known.items():
        if default is MISSING and name not in settings and name not in facts:
            return f"settings.{name}: is required, since {named} takes it and has no default"
    for name in sorted(getattr(found, "searched", ())):
        value = settings.get(name, known.get(name, getattr(found, name, MISSING)))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return (
                f"settings.{name}: {named} says that it may be searched, so it must be a number, by which "
                f"all members are judged"
            )
    return ""


def declared_by(found: Any) -> Trainable:
    """Return what a class or function says of itself."""
    network = network_of(found)
    takes = tuple(each for each in ROW_KINDS if each in getattr(found, "takes", ()))
    return Trainable(
        takes=takes,
        by_row=getattr(found, "by_row", None),
        by_loss=network is not None and bool(takes) and found.score is network.score,
        writes=bool(getattr(found, "writes", False)),
        network=network is not None,
        hyperparameters=known_numbers(found),
        constants=tuple(constants_in(found)),
        searched=tuple(sorted(getattr(found, "searched", ()))),
        priced=tuple(sorted({*getattr(found, "priced", ()), *(PRICED if network else ())})),
    )


def known_numbers(found: Any) -> tuple[str, ...] | None:
    """Return what may be searched of a class; None if a constructor of its own may take more."""
    network = network_of(found)
    if network is None or found.__init__ is not network.__init__:
        return None
    return tuple(sorted({*TRAINING_HYPERPARAMETERS, *found.searched}))
