"""Printing never ends a command, even if a letter cannot be encoded, a pipe closes or the disk is full."""

import contextlib
import errno
import gc
import io
import os
import sys
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from shoal.cluster import ending
from shoal.search.errors import RunFailed

if TYPE_CHECKING:
    from rich.console import Console


@cache
def screen(stderr: bool = False) -> "Console":
    """Return the console for standard output, or for errors; rich is imported when something is printed."""
    from rich.console import Console

    return Console(stderr=stderr)


def print_plainly(line: str, style: str | None = None, stderr: bool = False) -> None:
    """Print a line as it is, however long, without colours for what looks like a number or a path."""
    screen(stderr).print(line, style=style, highlight=False, soft_wrap=True, markup=False)


def warning_in_one_line(message: Warning | str, *place: Any) -> str:
    """Return a warning without its line of code, which says nothing to a user."""
    return f"warning: {' '.join(str(message).split())}\n"


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import for a short command: without looks for garbage, and numpy without threads of its BLAS.

    The first is a tenth of such a command, and the start of the threads longer than all else of numpy's import.
    """
    name, looking = "OPENBLAS_NUM_THREADS", gc.isenabled()
    given = os.environ.get(name)
    os.environ[name] = given or "1"
    gc.disable()
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]
        if looking:
            gc.enable()


class Steady:
    """A stream that lets the command go on when it cannot be written to any more; the rest is dropped."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.failure: Exception | None = None
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, but nothing after a signal that ends the command: Ray would print long errors then."""
        try:
            return len(text) if ending.came() else self.stream.write(text)
        except (OSError, ValueError) as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Drop what is written from now on, and what is still buffered."""
        self.failure = self.failure or error
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Make standard output and error such streams for a while; a closed one drops what it gets."""
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, Steady):
        yield
        return
    if None in before:
        fill_descriptors()
    out, error = (stream or io.TextIOWrapper(io.FileIO(os.devnull, "w")) for stream in before)
    sys.stdout, sys.stderr = Steady(out), Steady(error)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def fill_descriptors() -> None:
    """Fill closed descriptors 0 to 2: otherwise a file opened later would become standard output."""
    while (found := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(found)


def write_document(text: str) -> None:
    """Write text for another program; raises RunFailed if that fails, unless the reader has closed the pipe."""
    sys.stdout.write(text)
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None and getattr(failure, "errno", None) != errno.EPIPE:
        raise RunFailed(f"standard output cannot be written: {getattr(failure, 'strerror', failure)}.")
