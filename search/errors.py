"""The two errors that the command line shows without a stack trace."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used; the message says what must hold, what came, and what to do (exit code 2).

    If the user's own code raised, `trace` has its whole trace.
    """

    def __init__(self, said: str, trace: str = ""):
        super().__init__(said)
        self.trace = trace


class RunFailed(RuntimeError):
    """The run stopped before its end; it can be resumed from its checkpoints (exit code 1)."""


class Interrupted(RunFailed):
    """Ctrl-C (exit code 130)."""


class Exhausted(RunFailed):
    """The rows that members may read are used up: this ends the run, and no member has failed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message: the nearest known name, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else f"; allowed are {', '.join(names)}"
