"""Shoal from Python and notebooks: `import shoal`, then `shoal.run("demo.yaml")`, `shoal.open("runs/demo")`.

Errors are those of the command line: `InputError` for what the user can put right, `RunFailed` for a run that
stopped before its end (`Interrupted` by Ctrl-C or by the notebook's stop button).
"""

import os
from typing import Any, Literal

from shoal.search.config.run import Run
from shoal.search.errors import InputError, Interrupted, RunFailed
from shoal.search.front.given import Changes, Given, run_given
from shoal.search.front.plan import RunPlan, plans_of
from shoal.search.front.result import Result

__all__ = [
    "InputError",
    "Interrupted",
    "Result",
    "Run",
    "RunFailed",
    "RunPlan",
    "open",
    "plan",
    "run",
    "schema",
    "validate",
]


def run(
    given: Given,
    changes: Changes = (),
    *,
    baseline: bool = False,
    resume: Literal["never", "auto", "must"] = "never",
) -> Result:
    """Train a run to its end and return its result.

    `given` is a YAML file, a mapping as such a file would hold, or a `Run`; `changes` are made to it, as in
    `{"population.members": 4}`. In a mapping `trainable` may be a class object, also of a notebook. `baseline`
    and `resume` are as with `shoal run`. Ctrl-C raises Interrupted once Ray has ended; the run can be resumed.
    """
    from shoal.search.front.running import train_here

    return Result(train_here(run_given(given, changes), baseline, resume))


def open(directory: str | os.PathLike[str]) -> Result:
    """Return the result of a run directory or URI, as far as the run has come.

    Raises InputError if it holds no run.
    """
    return Result(os.fspath(directory))


def validate(given: Given, changes: Changes = ()) -> Run:
    """Return the run that is described, with every default; raises InputError that names all mistakes."""
    return run_given(given, changes)


def plan(given: Given, changes: Changes = (), *, measure: bool = False) -> list[RunPlan]:
    """Return what a run will take, before anything starts: one plan for each population that it trains.

    With `measure` a member is made here, trains two steps and is scored, so that the plan knows the seconds of
    a step and of the first interval; the rows are prepared if they are not there.
    """
    return plans_of(run_given(given, changes), measure)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a run's file, by which an editor completes and checks its keys."""
    from shoal.search.front.schema import run_schema

    return run_schema()
