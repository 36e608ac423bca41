"""How the command ends when a signal comes: with one line, and the signal's exit code."""

import contextlib
import os
import sys
from collections.abc import Iterator

from shoal.cluster import ending
from shoal.search.output import steady


@contextlib.contextmanager
def well_ended() -> Iterator[None]:
    """When a signal comes, end with one line and the signal's exit code, whatever the command is doing."""
    if ending.LISTENING:
        yield
        return
    with steady(), ending.listening() as told, quiet_about_signals(told):
        try:
            yield
        except BaseException:
            if told.came is None:
                raise
        if told.came is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            told.print_line()
            # exit at once: Python's own exit may wait for open files and threads, which the system closes
            os._exit(told.code)


@contextlib.contextmanager
def quiet_about_signals(told: ending.Ending) -> Iterator[None]:
    """Raise a signal's KeyboardInterrupt again where Python would only print it, as in a `__del__`."""
    before = sys.unraisablehook

    def hook(found: "sys.UnraisableHookArgs") -> None:
        if told.came is not None and isinstance(found.exc_value, KeyboardInterrupt):
            told.again()
        else:
            before(found)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
