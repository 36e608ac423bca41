"""Python's traces, which are for files: a screen shows their last line, and where the rest is."""

import os
import re
import tempfile
import traceback
from pathlib import PurePath

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # Ray colours what it raises again
BEGIN = re.compile(r"Traceback \(most recent call last\)|^.*\bray::|^ *File \"", re.MULTILINE)
FRAME = re.compile(r"^\s+File \"(.+)\", line (\d+)")
RAISED = re.compile(r"^[A-Za-z_][\w.()]*(: .*)?$")  # the line below the last frame of a trace
LIBRARY = re.compile(r"site-packages|dist-packages|python3\.\d+")
OURS = [PurePath(__file__).parents[1] / each for each in ("cluster", "policies", "search", "trainables")]
LONGEST_REASON = 300  # letters of a reason on a screen


def trace_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def in_one_line(text: str) -> str:
    """Return a reason in one line: of a trace its end, with the place in the user's own file."""
    plain = ESCAPES.sub("", text).strip()
    begin = BEGIN.search(plain)
    if begin is None:
        return shortened(" ".join(plain.split()))
    before = " ".join(plain[: begin.start()].split())
    lines = [line for line in plain[begin.start() :].splitlines() if line.strip()]
    frames = [(place, found) for place, line in enumerate(lines) if (found := FRAME.match(line))]
    below = lines[frames[-1][0] + 1 if frames else 0 :]
    said = next((line.strip() for line in below if RAISED.match(line)), lines[-1].strip())
    own = [f"{PurePath(found[1]).name}:{found[2]}" for _, found in frames if looks_like_users_file(found[1])]
    parts = [before.rstrip(".:"), *own[-1:], said]
    return shortened(": ".join(part for part in parts if part))


def looks_like_users_file(file: str) -> bool:
    """Say whether a file of a trace, which may be another machine's, is the user's own."""
    path = PurePath(file)
    ours = any(path.is_relative_to(each) for each in OURS)
    return not (file.startswith("<") or ours or any(map(LIBRARY.fullmatch, path.parts)))


def shortened(line: str) -> str:
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 3]}..."


def keep_trace(trace: str) -> str:
    """Write a trace into a file of its own, for whoever wants it, and return how to say where it is."""
    try:
        descriptor, place = tempfile.mkstemp(prefix="shoal-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(trace)
    except OSError as error:
        return f"The whole trace cannot be written: {error.strerror}."
    return f"The whole trace is in {place}."
