"""The runs of a file's stages: each is a population of its own."""

from typing import Any

from pydantic import ValidationError

from shoal.search.config.explain import explain
from shoal.search.config.fitting import with_fitting_defaults
from shoal.search.config.run import Run
from shoal.search.config.stages import Handover, OneStage, with_change
from shoal.search.errors import InputError

NOT_IN_STAGES = {"stages", "begin", "directory", "name", "kind"}


def stage_runs(run: Run) -> list[Run]:
    """Return the runs of all stages, in their order; raises InputError where a change makes no run."""
    return [stage_run(run, place) for place in range(len(run.stages))]


def stage_run(run: Run, place: int) -> Run:
    """Return the run of one stage."""
    stage, key = run.stages[place], f"stages.{place}"
    if named := sorted(NOT_IN_STAGES & {str(each).partition(".")[0] for each in stage.change}):
        raise InputError(f"{key}.change.{named[0]}: each stage has its own already; leave it out.")
    values = with_change(run.model_dump(exclude=NOT_IN_STAGES), stage.change)
    values |= {"name": f"{run.name}-{stage.name}", "kind": "population"}
    try:
        made = with_fitting_defaults(Run.model_validate(values))
    except ValidationError as error:
        told = [problem for detail in error.errors() for problem in explain(detail)]
        raise InputError(f"{key}.change: {told[0]}") from error
    changes: dict[str, Any] = {"directory": f"{run.directory}/{stage.name}" if run.directory else ""}
    if place:
        changes["begin"] = beginning(run, place, stage)
    return made.model_copy(update=changes)


def beginning(run: Run, place: int, stage: OneStage) -> Any:
    """Return how a stage begins: with the best of the one before, wherever that is written."""
    from shoal.search.config.stages import Begin

    kept = {name: getattr(stage, name) for name in Handover.model_fields}
    if stage.mix:
        kept["mix"] = f"{run.directory}/{stage.mix}"
    return Begin(run=f"{run.directory}/{run.stages[place - 1].name}", **kept)
