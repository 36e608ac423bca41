"""A class that Python code gives in place of `module:Class`: it is kept by value in the run directory.

The run's file names a small module there, so `shoal resume`, a replay and every worker find the class, wherever
it was written: in a notebook, in a script, or in a module that no other process can import.
"""

import hashlib
import inspect
import sys
from types import ModuleType
from typing import Any

from ray import cloudpickle

from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.errors import InputError

FOLDER = "code"  # in the run directory
MODULE = '''"""The class {name}, as it was given to `shoal.run`."""

from pathlib import Path

from ray import cloudpickle

{name} = cloudpickle.loads((Path(__file__).parent / "{module}.pickle").read_bytes())
'''


def named(given: Any) -> str:
    """Return how a run's file names a class object; from now on this process finds it under that name.

    Equal sources have equal names, so a run that is begun again from the same notebook is the same run.
    """
    if not inspect.isclass(given):
        raise InputError(
            f"trainable: must be a class, or the name of one as module:Class, got {type(given).__name__}"
        )
    try:
        source = inspect.getsource(given).encode()
    except (OSError, TypeError):  # there is no file, as in an interactive session
        source = by_value(given)
    module = ModuleType(f"shoal_class_{hashlib.blake2b(source, digest_size=8).hexdigest()}")
    setattr(module, given.__name__, given)
    sys.modules[module.__name__] = module
    return f"{module.__name__}:{given.__name__}"


def by_value(given: Any) -> bytes:
    """Return a class with the code of its module, so that no other process has to import that."""
    home = sys.modules.get(given.__module__)
    plain = home is None or home.__name__ == "__main__" or home.__name__.startswith("shoal.")
    if not plain:
        cloudpickle.register_pickle_by_value(home)
    try:
        found: bytes = cloudpickle.dumps(given)
    except Exception as error:  # whatever the class holds may refuse
        raise InputError(f"trainable: {given.__name__} cannot be sent to workers: {error}") from error
    finally:
        if not plain:
            cloudpickle.unregister_pickle_by_value(home)
    return found


def with_code(run: Run) -> Run:
    """Return the run with the place of its class, in its own directory."""
    if "://" in run.directory:
        raise InputError(
            f"trainable: a class object is kept in the run directory, which must then be a path, got "
            f"{run.directory}; name the class as module:Class"
        )
    return run.model_copy(update={"code": f"{run.directory}/{FOLDER}"})


def write_class(run: Run) -> None:
    """Write the class of a run that names one of `named`; other runs have nothing to write."""
    module, _, name = run.trainable.partition(":")
    given = getattr(sys.modules.get(module), name, None)
    if not module.startswith("shoal_class_") or given is None:
        return
    store = Store(run.code)
    store.write(f"{module}.pickle", by_value(given))
    store.write(f"{module}.py", MODULE.format(name=name, module=module))
    # the module that stands for the file is the one that was given
    sys.modules[module].__file__ = store.path(f"{module}.py")
