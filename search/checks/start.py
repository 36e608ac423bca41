"""What must hold for how a run begins and ends: a grid of first hyperparameters, and `stop:`."""

from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from shoal.policies.grid import grid_points
from shoal.search.config.run import Run

# kind of tracker -> the module that it imports, and what brings it
PACKAGES = {
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "mlflow": ("mlflow", "'shoal[mlflow]'"),
    "wandb": ("wandb", "'shoal[wandb]'"),
}


def check_grid(run: Run) -> str:
    """Return why the members make no grid over the hyperparameters, for `shoal.search.checks.run.CHECKS`."""
    if run.population.start != "grid" or run.starts or run.schedule:
        return ""
    if not run.hyperparameters:
        return "population.start: a grid needs hyperparameters; name one, or leave it out"
    try:
        grid_points(run.space(), run.population.members)
    except ValueError as error:
        return f"population.members: {error}"
    return ""


def check_stop(run: Run) -> str:
    """Return why `stop:` cannot end this kind of run, for the same."""
    if run.stop is not None and run.kind == "mixture":
        return "stop: the runs of a mixture are compared after equally many steps; leave it out"
    return ""


def check_track(run: Run) -> str:
    """Return why a tracker cannot be told of the run, for the same."""
    return next(filter(None, (missing_package(given) or wrong_place(given, run) for given in run.track)), "")


def missing_package(given: Any) -> str:
    """Return which package a tracker lacks."""
    module, source = PACKAGES[given.kind]
    if find_spec(module) is None:
        return f"track: {given.kind} needs the package {module}; `pip install {source}` brings it"
    return ""


def wrong_place(given: Any, run: Run) -> str:
    """Return why a tracker cannot write where it is told to."""
    if given.kind == "tensorboard" and "://" in (given.directory or run.directory):
        return "track: event files are written to a path; give {kind: tensorboard, directory: ...}"
    if given.kind == "mlflow" and "@" in urlsplit(given.uri).netloc:
        return "track: a password has no place in a run's file; set MLFLOW_TRACKING_USERNAME and ..._PASSWORD"
    return ""
