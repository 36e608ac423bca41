"""The two errors that the command line shows without a stack trace."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave cannot be used: says what must hold, what came, and what to do (exit code 2).

    Where code of the user's own raised, `trace` has the whole of it.
    """

    def __init__(self, said: str, trace: str = ""):
        super().__init__(said)
        self.trace = trace


class RunFailed(RuntimeError):
    """The run stopped before its end; what was checkpointed can be resumed (exit code 1)."""


class Interrupted(RunFailed):
    """Ctrl-C (exit code 130)."""


class Exhausted(RunFailed):
    """The rows that members may read are used up: it ends the run, and is nobody's failure."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message: the nearest known name, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else f"; allowed are {', '.join(names)}"
