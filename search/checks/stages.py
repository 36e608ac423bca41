"""What must hold of a run of kind `stages`, and of what a population begins with."""

from collections.abc import Callable

from shoal.search.config.run import Run
from shoal.search.config.stage_runs import stage_runs
from shoal.search.config.trainable import SETTINGS
from shoal.search.errors import InputError, nearest

SHAPING = {  # constants that say how a network is made
    "classifier": ("network", "model", "width", "layers", "classes"),
    "embedder": ("width", "layers", "hidden", "towers", "encoder"),
}


def check_stages(run: Run, problems: Callable[[Run], list[str]]) -> list[str]:
    """Return what is wrong with the stages of a run; `problems` returns what is wrong with a population."""
    if not run.stages:
        return ["stages: kind: stages needs at least two of them"]
    if problem := check_stage_names(run):
        return [problem]
    if run.distill is not None or run.swarm is not None:
        return [f"{'distill' if run.distill else 'swarm'}: stages are populations; leave it out"]
    if run.begin is not None:
        return ["begin: the first stage is a run of its own; begin there by a file of its own"]
    try:
        made = stage_runs(run)
    except InputError as error:
        return [str(error).rstrip(".")]
    for place, stage in enumerate(made):
        if found := [*problems(stage), *([problem] if (problem := check_joint(made, place)) else [])]:
            return [f"stages.{place}: {problem}" for problem in found]
    return []


def check_stage_names(run: Run) -> str:
    names = [stage.name for stage in run.stages]
    if len(names) < 2:
        return "stages: must be at least two; one stage is a run of kind: population"
    for place, stage in enumerate(run.stages):
        if stage.name in names[:place]:
            return f"stages.{place}.name: must differ from those before, got {stage.name}"
        if stage.mix and stage.mix not in names[: max(place - 1, 0)]:
            known = names[: max(place - 1, 0)]
            return (
                f"stages.{place}.mix: must be a stage before the one that it begins with"
                f"{nearest(stage.mix, known)}, got {stage.mix}"
            )
    first = run.stages[0]
    odd = [name for name in ("slots", "fresh", "noise", "mix") if getattr(first, name)]
    return f"stages.0.{odd[0]}: the first stage begins with nobody's weights; leave it out" if odd else ""


def check_joint(made: list[Run], place: int) -> str:
    """Return why a stage cannot begin with the weights of the one before, or with those mixed in."""
    stage = made[place]
    if not place:
        return ""
    if stage.trainable != made[place - 1].trainable:
        return f"change.trainable: must be that of the stage before, got {stage.trainable}"
    if stage.trainable == "decoder":
        from shoal.trainables.growth import growth_between
        from shoal.trainables.settings import DecoderShape

        shapes = [DecoderShape(2, 8, **each.model.shape) for each in made[place - 1 : place + 1]]
        try:
            growth_between(*shapes)
        except ValueError as error:
            return f"change.model: {str(error).rstrip('.')}"
    return check_same_network(made[place - 1], stage)


def check_same_network(before: Run, stage: Run) -> str:
    """Return which constant of a built-in class gives a stage another network than the one before had."""
    section = SETTINGS.get(stage.trainable)
    for name in SHAPING.get(stage.trainable, ()):
        usual = section.model_fields[name].default if section else None
        had, wanted = (each.settings.get(name, usual) for each in (before, stage))
        if had != wanted:
            return f"change.settings.{name}: must be that of the stage before, {had!r}, got {wanted!r}"
    return ""


def check_begin(run: Run) -> str:
    """Return why a population cannot begin with another run's weights, for `run.CHECKS`."""
    if run.kind != "stages" and run.stages:
        return "stages: belong to a run of `kind: stages`"
    if run.begin is None:
        return ""
    if run.kind != "population":
        return f"begin: only members of kind: population begin with weights, got kind {run.kind}"
    if run.trainable == "toy" or (run.own and not run.described.network):
        return f"begin: needs members that are a Network, got {run.trainable}"
    if run.cluster.workers_per_member > 1 and run.begin.slots == "keep":
        return "begin.slots: members over several workers begin with fresh slots; leave it out"
    return ""
