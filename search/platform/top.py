"""`shoal top` shows a running population from its directory, on any machine that can read it."""

import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live

from shoal.cluster.storage import Store
from shoal.cluster.this_job import DIRECTORY
from shoal.policies.population import Order
from shoal.search.driver.progress import Progress
from shoal.search.errors import InputError
from shoal.search.messages import Row
from shoal.search.platform import jobs
from shoal.search.records import directory, tables
from shoal.search.records.lineage import read_lineage

SECONDS_BETWEEN_READS = 1.0
ENDED = ("done", "failed", "interrupted", "stopped")


def watch_run(target: str, address: str | None, console: Console, once: bool) -> None:
    """Show members, scores and copies round by round until the run ends; only once without a terminal."""
    run, store = directory.open_run(run_directory_of(target, address))
    view = Progress(run, Console(quiet=True), run.label)
    seen = NewestRows()
    show_newest(view, seen, store)
    if once or not console.is_terminal:
        console.print(view.render())
        console.print(f"status: {run_status(store)}", highlight=False)
        return
    with Live(get_renderable=view.render, console=console, refresh_per_second=2):
        while run_status(store) not in ENDED:
            time.sleep(SECONDS_BETWEEN_READS)
            show_newest(view, seen, store)
    console.print(f"status: {run_status(store)}", highlight=False)


def run_directory_of(target: str, address: str | None) -> str:
    """Return the run directory of a job, or the target itself if it is one."""
    if jobs.is_directory(target):
        return target
    with jobs.one_line_errors():
        client = jobs.jobs.job_client(address)
        known = jobs.jobs.details(client, target)
    place = (known.metadata or {}).get(DIRECTORY) if known else None
    if place is None:
        raise InputError(f"{target}: is neither a run directory nor one of Shoal's jobs on this cluster.")
    return str(place)


@dataclass
class NewestRows:
    """The newest row of each member in a run's metrics, whose parts are each read only once."""

    parts: list[str] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)

    def read(self, store: Store) -> bool:
        """Read new parts, or all again if a resumed run has dropped some; return whether any was new."""
        there = store.parts(tables.METRICS)
        if there[: len(self.parts)] != self.parts:
            self.parts, self.rows = [], {}
        new = there[len(self.parts) :]
        try:
            for part in new:
                read = tables.read_part(store, f"{tables.METRICS}/{part}").to_pylist()
                self.rows |= {row.member: row for row in map(tables.row_of, read)}
        except FileNotFoundError:  # the run was resumed and has dropped it: all again at the next look
            self.parts, self.rows = [], {}
            return False
        self.parts = there
        return bool(new)


def show_newest(view: Progress, seen: NewestRows, store: Store) -> None:
    """Show the members as they are now, if anything is new."""
    if not seen.read(store):
        return
    events = read_lineage(store)
    last = max(event.round for event in events)
    now = {event.member: event.after for event in events}
    rows = [row._replace(hyperparameters=now.get(member, {})) for member, row in sorted(seen.rows.items())]
    copies = [event for event in events if event.parent is not None]
    orders = [Order(event.member, event.parent or 0, event.after) for event in copies if event.round == last]
    round_ = tables.round_of(seen.parts[-1])
    view.round(round_, rows, orders if last == round_ else [])
    view.exploits = sum(event.parent != event.member for event in copies)


def run_status(store: Store) -> str:
    return str(directory.summary(store).get("status", "not begun"))
