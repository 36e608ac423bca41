"""What `shoal run` and `shoal resume` do with a run of each kind: `kind:` at the top of its file."""

import importlib
from typing import Any

# kind -> module with run_new(run, console, baseline, resume) and run_on(path, console)
RUNS = {
    "population": "search.running",
    "distill": "search.distill.running",
    "mixture": "search.mixture.proxies",
}


def known_kind(kind: str) -> str:
    if kind not in RUNS:
        raise ValueError(f"must be one of {', '.join(RUNS)}, got {kind!r}")
    return kind


def runner(kind: str) -> Any:
    """Return the module that carries out runs of this kind; imported late, since most commands need none."""
    return importlib.import_module(RUNS[kind])
