"""One model trained along the schedule that a population found, with the data of its winning lineage."""

import math
import shlex

import numpy as np
from rich.console import Console

from shoal.cluster.session import session
from shoal.cluster.storage import Store
from shoal.policies.schedule import Setting
from shoal.search.config.kinds import no_exploit
from shoal.search.config.run import Run
from shoal.search.config.sections import Scheduled
from shoal.search.errors import InputError
from shoal.search.records import directory
from shoal.search.records.last import member_of
from shoal.search.records.lineage import Segment, ancestry, read_lineage, schedule_of
from shoal.search.records.tables import METRICS, read_table_rows
from shoal.search.runs.closing import close
from shoal.search.runs.population import finish, prepare_run


def lineage_of(run: Run, store: Store, member: int | None = None) -> tuple[int, list[Segment]]:
    """Return a member (the best one by default) and where its weights of the last round trained."""
    row = member_of(run, store, member)
    return row.member, ancestry(read_lineage(store), row.member, round=row.round)


def schedule_entries(path: list[Segment]) -> list[dict[str, object]]:
    """Return a lineage's schedule in the form of a file's `schedule:`."""
    return [setting._asdict() for setting in schedule_of(path)]


def replay_lineage(place: str, member: int | None, console: Console) -> None:
    """Train the member's lineage again as one model, and print how far its weights differ."""
    run, store = directory.going_on(place)
    if directory.summary(store).get("status") != "done":
        raise InputError(
            f"{place} is not finished: continue it with `shoal resume {shlex.quote(place)}`, then replay it."
        )
    chosen, path = lineage_of(run, store, member)
    steps = member_of(run, store, chosen).step
    if run.population.backtrack and steps != run.training.steps:
        raise InputError(
            f"{place}: member {chosen} went back to earlier weights and has trained {steps} steps of the run's "
            f"{run.training.steps}, so no run repeats it; its schedule is printed by "
            f"`shoal schedule {shlex.quote(place)}`."
        )
    if run.stop is not None and steps != run.training.steps:
        raise InputError(
            f"{place} was stopped at step {steps} of {run.training.steps}, so no run repeats it; its schedule "
            f"is printed by `shoal schedule {shlex.quote(place)}`."
        )
    again = as_one_model(run, store, chosen, path)
    directory.refuse_existing(again)
    again = prepare_run(again, console)
    with session():
        copy = directory.create(again)
        finish(again, console)
    close(again, copy, console)
    console.print(compare_weights(run, store, again, copy, chosen), highlight=False, soft_wrap=True)


def as_one_model(run: Run, store: Store, member: int, path: list[Segment]) -> Run:
    """Return the run of one member: it starts as the lineage's first member did and follows the schedule."""
    settings: list[Setting] = schedule_of(path)
    # copies may lie between multiples of the interval; then the schedule needs a finer one
    interval = math.gcd(run.population.interval, *(setting.from_step for setting in settings))
    alone = {
        "members": 1,
        "exploit": no_exploit(),
        "cull": None,
        "backtrack": False,
        "parts": {},
        "mode": "synchronous",
        "interval": interval,
    }
    population = run.population.model_copy(update=alone)
    # stacks of any size mostly round alike, so a member that was stacked is stacked again
    rows = read_table_rows(store, METRICS)
    stacked = any(row["stacked"] for row in rows if row["member"] == member)
    threads = directory.summary(store)["threads"]
    one = {"broods": 1, "workers_per_brood": None, "members_per_worker": 1}
    one |= {"threads_per_worker": threads, "stack": stacked, "compile": run.cluster.compile and stacked}
    return run.model_copy(
        update={
            "name": f"{run.name}-replay",
            "directory": f"{store.uri}/replay/{member}",
            "hyperparameters": {},
            "schedule": [Scheduled(**setting._asdict()) for setting in settings],
            "root": run.root + path[0].member,
            "stop": None,
            "population": population,
            "cluster": run.cluster.model_copy(update=one),
        }
    )


def compare_weights(run: Run, store: Store, replayed: Run, copy: Store, member: int) -> str:
    """Return a sentence that compares the replay's last weights with the run's."""
    found, again = (
        directory.whole_weights(each, place, member_of(each, place, number))
        for each, place, number in ((run, store, member), (replayed, copy, 0))
    )
    if all(np.array_equal(found[name], again[name]) for name in found):
        return f"member {member} of {run.name} and its replay have the same weights, bit for bit"
    apart = max(float(np.abs(found[name].astype(float) - again[name]).max()) for name in found)
    return f"the weights of member {member} of {run.name} and of its replay differ by up to {apart:.3g}"
