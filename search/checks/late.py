"""Checks of what few files have: each module, and the rules it looks at, are imported for those alone."""

from shoal.search.config.kinds import SpaceWithin
from shoal.search.config.run import Run
from shoal.search.config.trainable import SETTINGS


def look_at_mixing(run: Run) -> str:
    if run.mixing is None:
        if isinstance(run.hyperparameters.get("mixing"), SpaceWithin):
            return "hyperparameters.mixing: searches a mixing policy's settings, but there is no `mixing:`"
        return ""
    from shoal.search.checks import mixing

    return mixing.check_mixing(run)


def look_at_objective(run: Run) -> str:
    if run.sampling.rule is not None and run.sampling.rule.kind == "storm" and run.trainable != "classifier":
        return f"sampling.rule: storm weighs rows by their class, so it needs a classifier, got {run.trainable}"
    known = run.described.hyperparameters or ()
    if run.kind == "distill" or not run.described.gives:
        if "objective" in run.hyperparameters and not run.own and "objective" not in known:
            return f"hyperparameters.objective: the {run.trainable} has a loss of its own, without such numbers"
        return ""
    from shoal.search.checks import objective

    return objective.check_objective(run)


def look_at_settings(run: Run) -> str:
    if run.kind == "distill" or run.trainable not in SETTINGS:
        return ""
    from shoal.search.checks import objective

    return objective.check_settings_section(run)


def look_at_images(run: Run) -> str:
    if run.kind == "distill" or run.trainable != "classifier":
        return ""
    from shoal.search.checks import vision

    return vision.check_images(run)


def look_at_selection(run: Run) -> str:
    if run.selection is None:
        return ""
    from shoal.search.checks import selection

    return selection.check_selection(run)


def look_at_swarm(run: Run) -> str:
    if run.kind != "mixture":
        return "swarm: belongs to a run of `kind: mixture`" if run.swarm is not None else ""
    from shoal.search.checks import swarm

    return swarm.check_swarm(run)


def look_at_begin(run: Run) -> str:
    if run.begin is None and not run.stages:
        return ""
    from shoal.search.checks import stages

    return stages.check_begin(run)
