"""What must hold for how a run begins and ends: a grid of first hyperparameters, and `stop:`."""

from shoal.policies.grid import grid_points
from shoal.search.config.run import Run


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
