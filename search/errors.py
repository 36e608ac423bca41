"""The two errors that the command line shows without a stack trace."""


class InputError(ValueError):
    """What the user gave cannot be used: says what must hold, what came, and what to do (exit code 2)."""


class RunFailed(RuntimeError):
    """The run stopped before its end; what was checkpointed can be resumed (exit code 1)."""


class Interrupted(RunFailed):
    """Ctrl-C (exit code 130)."""


class Exhausted(RunFailed):
    """The rows that members may read are used up: it ends the run, and is nobody's failure."""
