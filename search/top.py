"""`shoal top`: a running population as its directory shows it, from any machine that can read it."""

import time

from rich.console import Console
from rich.live import Live

from cluster.driver import DIRECTORY
from cluster.storage import Store
from policies.population import Order
from search import directory, jobs, records
from search.config import Run
from search.errors import InputError
from search.lineage import read_lineage
from search.progress import Progress

SECONDS_BETWEEN_LOOKS = 1.0
ENDED = ("done", "failed", "interrupted")


def top(target: str, address: str | None, console: Console, once: bool) -> None:
    """Show members, scores and copies round by round until the run ends; once where nobody watches."""
    run, store = directory.open_run(place_of(target, address))
    view = Progress(run, Console(quiet=True), run.label)
    look(view, run, store)
    if once or not console.is_terminal:
        console.print(view.render())
        console.print(f"status: {status(store)}", highlight=False)
        return
    with Live(get_renderable=view.render, console=console, refresh_per_second=2):
        while status(store) not in ENDED:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            look(view, run, store)
    console.print(f"status: {status(store)}", highlight=False)


def place_of(target: str, address: str | None) -> str:
    """Return the run directory of a job, or the target itself if it is one."""
    if jobs.is_directory(target):
        return target
    with jobs.one_line():
        client = jobs.jobs.connect(address)
        known = jobs.jobs.details(client, target)
    place = (known.metadata or {}).get(DIRECTORY) if known else None
    if place is None:
        raise InputError(f"{target}: is neither a run directory nor one of Shoal's jobs on this cluster.")
    return str(place)


def look(view: Progress, run: Run, store: Store) -> None:
    """Show the newest round, if it is another than before."""
    parts = [part for part in store.names(records.METRICS) if part.startswith("part-")]
    if not parts:
        return
    rows = store.read_table(f"{records.METRICS}/{parts[-1]}").to_pylist()
    round_ = max(row["round"] for row in rows)
    if round_ == view.round_:
        return
    events = read_lineage(store)
    copies = [event for event in events if event.parent is not None and event.round <= round_]
    now = {event.member: event.after for event in events if event.round <= round_}
    rows = [row | {"hyperparameters": now.get(row["member"], {})} for row in rows]
    orders = [
        Order(event.member, event.parent, event.after)
        for event in events
        if event.round == round_ and event.parent is not None
    ]
    view.round(round_, rows, orders)
    view.exploits = sum(event.parent != event.member for event in copies)


def status(store: Store) -> str:
    return str(directory.summary(store).get("status", "not begun"))
