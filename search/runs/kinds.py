"""What `shoal run` and `shoal resume` do with a run of each kind: `kind:` at the top of its file."""

import importlib
from typing import Any

# kind -> module with run_new(run, console, baseline, resume) and run_on(path, console)
RUNS = {
    "population": "shoal.search.runs.population",
    "distill": "shoal.search.runs.distill",
    "mixture": "shoal.search.runs.mixture",
    "stages": "shoal.search.runs.stages",
}


def runner(kind: str) -> Any:
    """Return the module that carries out runs of this kind; imported late, since most commands need none."""
    return importlib.import_module(RUNS[kind])
