"""What `shoal run` and `shoal resume` do with a run of kind `distill`: a population, then its students."""

import shlex
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from shoal.cluster import checkpoints
from shoal.cluster.session import session
from shoal.cluster.storage import Store
from shoal.policies.parts import part_of_member
from shoal.policies.standings import rank
from shoal.search.config.distill import UNITS
from shoal.search.config.run import Run
from shoal.search.corpus.text import held_out_of
from shoal.search.distill.card import read_teacher
from shoal.search.distill.costs import cost_of, spaces_of
from shoal.search.distill.members import trained
from shoal.search.distill.students import SCORED, STUDENTS, ScoredNetwork, search_students
from shoal.search.distill.teacher import open_teacher
from shoal.search.errors import InputError
from shoal.search.records import directory
from shoal.search.records.tables import METRICS, read_table_rows
from shoal.search.runs import population as running
from shoal.search.runs.closing import print_next
from shoal.trainables.distill.spaces import Subnet


def run_new(run: Run, console: Console, baseline: bool = False, resume: str = "never") -> None:
    """Train a population of super-networks, then pick students out of them."""
    running.run_new(run, console, baseline, resume)
    pick(
        directory.open_run(run.directory)[0], console
    )  # the run in the directory knows the content of its rows


def run_on(path: str, console: Console) -> None:
    """Continue the training, or only the search if the training is done."""
    run, store = directory.going_on(path)
    if directory.summary(store).get("status") != "done":
        running.run_on(path, console)
    elif store.exists(STUDENTS):
        raise InputError(f"{path} is finished: see {store.uri}/{STUDENTS}.")
    pick(run, console)


def pick(run: Run, console: Console) -> None:
    """Search all sub-spaces with the shared weights; write every score and the students, and print them."""
    store, shape = Store(run.directory), read_teacher(run).shape
    assert shape is not None
    winners = winners_of(run, store)
    last = checkpoints.latest(store, range(run.population.members))
    assert last is not None, "a finished run has a checkpoint"
    weights = {
        name: checkpoints.load_member(store, last, member)["weights"] for name, member in winners.items()
    }
    held_out = held_out_of(run)
    with session():
        rows = search_students(run, shape, weights, held_out)
    students = [row | {"member": winners[row["space"]]} for row in rows if "name" in row]
    students.sort(key=lambda row: row[run.distilling.search.objective])
    add_test_losses(run, students, weights)
    whole = {"name": "teacher", **cost_of(run, shape, shape.whole)}
    plain = [{**row, "subnet": row["subnet"].plain()} for row in students]
    store.write_table(SCORED, pa.Table.from_pylist([flat_row(row) for row in rows]))
    store.write_json(STUDENTS, {"teacher": whole, "round": last, "students": plain})
    console.print(students_table(run, whole, students))
    for budget in unmet(run, rows):
        console.print(
            f"no network is within {budget:g}: {nearest_to(run, rows)}", highlight=False, soft_wrap=True
        )
    console.print(
        f"{len(rows)} networks scored, {len(students)} students on the front: "
        f"`shoal export {shlex.quote(run.directory)} --student {shlex.quote(students[0]['name'])}`",
        highlight=False,
        soft_wrap=True,
    )
    print_next(run, console)


def unmet(run: Run, rows: list[ScoredNetwork]) -> list[float]:
    """Return the budgets that no network is within: of measured ones this is known only afterwards."""
    least = min(row[run.distilling.search.objective] for row in rows)
    return [budget for budget in run.distilling.search.budgets if budget < least]


def nearest_to(run: Run, rows: list[ScoredNetwork]) -> str:
    objective = run.distilling.search.objective
    least = min(rows, key=lambda row: row[objective])
    return f"the nearest has {least[objective]:.4g} {UNITS[objective]}, of {least['space']}"


def winners_of(run: Run, store: Store) -> dict[str, int]:
    """Return the best member of each sub-space at the last round."""
    rows = read_table_rows(store, METRICS)
    last = max(row["round"] for row in rows)
    found = {}
    for part, name in enumerate(run.distilling.spaces):
        scores = {
            row["member"]: row["score"]
            for row in rows
            if row["round"] == last and part_of_member(row["member"], run.parts) == part
        }
        found[name] = rank(scores)[0]
    return found


def add_test_losses(run: Run, students: list[ScoredNetwork], weights: dict[str, Any]) -> None:
    """Measure the students on test rows, which played no part in the choice."""
    taught = open_teacher(run, "cpu")
    held_out = held_out_of(run)
    for name in spaces_of(run, taught[1].shape):
        own = [row for row in students if row["space"] == name]
        if own:
            member = trained(run, name, taught, held_out, weights[name])
            for row, loss in zip(own, member.losses([row["subnet"] for row in own], "test"), strict=True):
                row["test_loss"] = loss


def flat_row(row: ScoredNetwork) -> ScoredNetwork:
    """Return a scored network as one row of a table."""
    subnet: Subnet = row["subnet"]
    rest = {key: value for key, value in row.items() if key not in ("subnet", "budgets", "name")}
    return rest | subnet.plain() | {"name": row.get("name")}


def students_table(run: Run, teacher: ScoredNetwork, students: list[ScoredNetwork]) -> Table:
    """Return the teacher and its students: shape, cost, losses in nats, and the budgets they answer to."""
    measured = ["latency"] if run.distilling.search.objective == "latency" else []
    costs = ["parameters", "macs", *measured]
    judged = ["accuracy"] if run.distilling.search.proxy else []
    names = ("student", "layers", "heads", "width", "inner", *(UNITS[cost] for cost in costs))
    shown = Table(*names, "loss", "test loss", *judged, "best within", box=None, pad_edge=False)
    shape = read_teacher(run).shape
    assert shape is not None
    zeros = ["0", "0", *("" for _ in judged), ""]
    shown.add_row("teacher", *sizes(shape.whole), *(amount(teacher.get(cost)) for cost in costs), *zeros)
    for row in students:
        losses = [f"{row[name]:.4f}" for name in ("loss", "test_loss", *judged)]
        budgets = ", ".join(f"{budget:g}" for budget in row.get("budgets", []))
        shown.add_row(
            row["name"], *sizes(row["subnet"]), *(amount(row[cost]) for cost in costs), *losses, budgets
        )
    return shown


def sizes(subnet: Subnet) -> list[str]:
    return [str(size) for size in (len(subnet.layers), subnet.heads, subnet.width, subnet.inner)]


def amount(cost: float | None) -> str:
    return "" if cost is None or np.isnan(cost) else f"{cost:.4g}"
