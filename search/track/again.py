"""`shoal track`: a run is sent to its trackers from its own records, from the beginning."""

from collections.abc import Sequence
from typing import Any

from shoal.cluster.storage import Store
from shoal.policies.population import Order
from shoal.search.config.run import Run
from shoal.search.config.tracking import TensorBoard
from shoal.search.messages import GroupMixture, MixtureAccount, Row
from shoal.search.records.lineage import Event, read_lineage
from shoal.search.records.tables import METRICS, MIXING, read_table_rows, row_of
from shoal.search.track.watching import TRACKERS_BY_KIND, Told, send


def track_again(run: Run, store: Store) -> list[str]:
    """Send all rounds of a run to its trackers, by default TensorBoard; return where each one has them."""
    rounds = rounds_of(store)
    places = []
    for given in run.track or [TensorBoard(kind="tensorboard")]:
        tracker = TRACKERS_BY_KIND[given.kind](run, given)
        tracker.begin_anew()
        for told in rounds:
            send(tracker, told)
        tracker.close()
        places.append(f"{given.kind}: {tracker.folder}")
    return places


def rounds_of(store: Store) -> list[Told]:
    """Return what the trackers of a run would have been told, round by round."""
    events = read_lineage(store)
    mixtures = read_table_rows(store, MIXING) if store.exists(MIXING) else []
    shares: dict[tuple[int, int], list[GroupMixture]] = {}
    for each in mixtures:
        share = GroupMixture(each["group"], each["proportion"], each["seen"], each["rows"], [], [])
        shares.setdefault((each["round"], each["member"]), []).append(share)
    found: dict[int, list[Row]] = {}
    for columns in read_table_rows(store, METRICS):
        row = row_of(columns)
        mixed = shares.get((row.round, row.member))
        row = row._replace(
            hyperparameters=held(events, row),
            mixture=None if mixed is None else MixtureAccount(mixed, "", 0, 0, 0),
        )
        found.setdefault(row.round, []).append(row)
    return [Told(rows, orders_after(events, round_, rows)) for round_, rows in sorted(found.items())]


def held(events: Sequence[Event], row: Row) -> dict[str, Any]:
    """Return the hyperparameters of a row's score: those before the decision of its own round."""
    own = [event for event in events if event.member == row.member and event.round < row.round]
    return dict(max(own, key=lambda event: event.round).after)


def orders_after(events: Sequence[Event], round_: int, rows: Sequence[Row]) -> list[Order]:
    here = {row.member for row in rows}
    return [
        Order(event.member, event.parent, event.after)
        for event in events
        if event.event == "copy" and event.round == round_ and event.parent is not None and event.member in here
    ]
