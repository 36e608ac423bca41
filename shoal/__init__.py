"""Shoal: populations of models on a Ray cluster. `shoal.run(file)` trains, `shoal.open(directory)` reads.

The packages are imported as `shoal.policies`, `shoal.trainables` and so on. Installed, they lie in this folder.
In a checkout they lie beside it, and are found there.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import _old_names

if TYPE_CHECKING:
    from shoal.front import (
        InputError,
        Interrupted,
        Result,
        Run,
        RunFailed,
        RunPlan,
        open,
        plan,
        run,
        schema,
        validate,
    )

__all__ = [
    "InputError",
    "Interrupted",
    "Result",
    "Run",
    "RunFailed",
    "RunPlan",
    "open",
    "plan",
    "run",
    "schema",
    "validate",
]

_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "policies" / "population.py").is_file() and not (Path(__file__).parent / "policies").exists():
    __path__.append(str(_CHECKOUT))
_old_names.serve(_CHECKOUT)


def __getattr__(name: str) -> Any:
    """Import the front door only when it is used: workers and the command line need little of it."""
    if name not in __all__:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    from shoal import front

    return getattr(front, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
