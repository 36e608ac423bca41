"""Python's traces, which are for files: a screen shows their last line, and where the rest is."""

import os
import re
import tempfile
import traceback

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # Ray colours what it raises again
RAISED = re.compile(r"^[A-Za-z_][\w.]*(: .*)?$")  # what stands below the last frame of a trace


def trace_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def last_line(trace: str) -> str:
    """Return what a trace says in the end, in one line; of a text that has none, its first line."""
    lines = [line for line in ESCAPES.sub("", trace).strip().splitlines() if line.strip()]
    frames = [place for place, line in enumerate(lines) if re.match(r"\s+File \"", line)]
    if not frames:
        return lines[0].strip() if lines else "no reason was given"
    below = [line.strip() for line in lines[frames[-1] + 1 :] if not line.startswith(" ")]
    return next((line for line in below if RAISED.match(line)), lines[-1].strip())


def keep(trace: str) -> str:
    """Write a trace into a file of its own, for whoever wants it, and return its place."""
    descriptor, place = tempfile.mkstemp(prefix="shoal-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(trace)
    return place
