"""What is printed never ends a command: no letter that an encoding lacks, no pipe that closes, no full disk."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from shoal.cluster import ending
from shoal.search.errors import RunFailed


class Steady:
    """A stream that lets the command go on when it cannot be written to any more: the rest is for nobody."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.failure: Exception | None = None
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, until a signal ends the command: Ray would say at length what it finds missing then."""
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
        """Send what is written from here on, and what still waits in the stream, to nowhere."""
        self.failure = self.failure or error
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Make standard output and standard error such streams meanwhile; those that are closed lead nowhere."""
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
    """Take the descriptors that were given closed: a file that is opened later would be standard output."""
    while (found := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(found)


def write_document(text: str) -> None:
    """Write what a program may read; raises RunFailed if that fails, unless its reader has gone."""
    sys.stdout.write(text)
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None and getattr(failure, "errno", None) != errno.EPIPE:
        raise RunFailed(f"standard output cannot be written: {getattr(failure, 'strerror', failure)}.")
