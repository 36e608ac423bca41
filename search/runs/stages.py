"""A run of kind `stages`: populations one after another, each begins with the best member of the last.

The stages are whole runs below the run's directory: they resume, replay, and have reports of their own.
"""

from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from shoal.cluster import lease
from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.config.stage_runs import stage_runs
from shoal.search.errors import InputError
from shoal.search.records import directory
from shoal.search.report.staged import write_stages_report
from shoal.search.runs import population as running

STAGE_COLUMNS = ("stage", "members", "steps", "best score", "seconds", "report")


def run_new(run: Run, console: Console, baseline: bool = False, resume: str = "never") -> None:
    """Train the stages, or as `resume` says go on with those that the directory already holds."""
    if resume == "must" or (resume == "auto" and directory.holds_run(run.directory)):
        train_stages(directory.same_run(run), console, baseline)
        return
    directory.refuse_existing(run)
    directory.check_place(run)
    directory.create(run)
    train_stages(run, console, baseline)


def run_on(path: str, console: Console) -> None:
    """Go on with the stages where they stopped."""
    run, store = directory.going_on(path)
    if directory.summary(store).get("status") == "done":
        raise InputError(f"{path} is finished: see the reports of its stages, {store.uri}/NAME/report.html.")
    baseline = any(store.exists(f"{stage.name}/baseline/{directory.SETTINGS}") for stage in run.stages)
    train_stages(run, console, baseline)


def train_stages(run: Run, console: Console, baseline: bool) -> None:
    """Train what is left of the stages; print and record what each of them took."""
    with lease.holding(run.directory) as store, running.well_recorded(run, partial(record, store, run)):
        record(store, run, "running")
        for stage in stage_runs(run):
            if directory.summary(Store(stage.directory)).get("status") != "done":
                running.run_new(stage, console, baseline, resume="auto")
        record(store, run, "done")
    table = Table(*STAGE_COLUMNS, box=None, pad_edge=False)
    for name, told in store.read_json(directory.SUMMARY)["stages"].items():
        score = f"{told['best_score']:.4f}"
        report = f"{store.uri}/{name}/report.html"
        table.add_row(name, *map(str, (told["members"], told["steps"], score, round(told["seconds"]), report)))
    console.print(table)
    console.print(f"report: {write_stages_report(store)}", highlight=False, soft_wrap=True)


def record(store: Store, run: Run, status: str) -> None:
    """Write down the status, and what each finished stage took: steps are those of each member."""
    stages: dict[str, Any] = {}
    for stage in stage_runs(run):
        said = directory.summary(Store(stage.directory))
        if said.get("status") == "done":
            stages[stage.directory.rpartition("/")[2]] = {
                "members": stage.population.members,
                "steps": stage.training.steps,
                "best_score": said["best_score"],
                "best_member": said["best_member"],
                "seconds": said["wall_seconds"],
            }
    whole = {
        "member_steps": sum(told["members"] * told["steps"] for told in stages.values()),
        "wall_seconds": sum(told["seconds"] for told in stages.values()),
    }
    store.write_json(directory.SUMMARY, {"status": status, "stages": stages, **whole})
