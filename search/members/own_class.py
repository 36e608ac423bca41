"""Members of the user's own: a class in a file of theirs, named in YAML as `module:Class`."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from search.errors import InputError
from trainables.member import Member

MakeMember = Callable[..., Member]  # (recipe, hyperparameters, seed, device)


def own_class(trainable: str) -> MakeMember:
    """Return what `module:Class` names; the module lies in the working folder or is installed."""
    module_name, _, name = trainable.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, but imports one that is not
        raise InputError(
            f"trainable: no module `{module_name}` in {os.getcwd()} or among what is installed, got {trainable}"
        ) from error
    found: Any = getattr(module, name, None)
    if not callable(found):
        raise InputError(f"trainable: {module_name} must have a class or function `{name}`, but has none")
    make: MakeMember = found
    return make
