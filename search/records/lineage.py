"""The lineage of a run: which member copied which, and so where weights and hyperparameters came from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from shoal.cluster.storage import Store
from shoal.policies.schedule import Setting
from shoal.policies.space import Hyperparameters, frozen
from shoal.search.errors import InputError
from shoal.search.records.tables import LINEAGE, Event, read_table_rows


class Segment(NamedTuple):
    """Weights trained in one member's slot, with the same hyperparameters all along."""

    from_step: int
    to_step: int | None  # None in the last segment, which is open
    member: int
    hyperparameters: Hyperparameters
    from_round: int  # the decision of this round began it, so it trained in the rounds after
    to_round: int | None


def read_lineage(store: Store, until: int | None = None) -> list[Event]:
    """Return the events of a run, or of its parts up to a round, starts first.

    Raises InputError if there are none or parts are lost.
    """
    rows = read_table_rows(store, LINEAGE, until)
    with store.guarded(LINEAGE):
        events = [event_of(row) for row in rows]
    events.sort(key=lambda event: (event.round, event.member))
    started = {event.member for event in events if event.event == "start"}
    named = {event.member for event in events} | {event.parent for event in events if event.parent is not None}
    if named - started:
        raise InputError(
            f"{store.uri}/{LINEAGE} must hold a start of every member, but has none of "
            f"{', '.join(map(str, sorted(named - started)))}: a part of it is missing."
        )
    return events


def event_of(row: Mapping[str, Any]) -> Event:
    """Return an event as a row of the lineage's table has it."""
    return Event(**{**row, "before": _parsed(row["before"]), "after": _parsed(row["after"])})


def ancestry(events: Iterable[Event], member: int, round: int | None = None) -> list[Segment]:
    """Return where the weights of `member` trained, root first.

    With `round`, the weights are those that round scored, so its own decision is left out;
    without, those the member has now. The last segment is open: its `to_step` is None.
    """
    arrivals = _arrivals(events)
    path: list[Segment] = []
    to_step, to_round, slot = None, round, member
    while True:
        arrival = arrivals[slot][-1] if to_round is None else _arrival(arrivals[slot], to_round)
        path.append(_segment(arrival, to_step, to_round))
        if arrival.parent is None:
            return path[::-1]
        to_step, to_round, slot = arrival.began, arrival.copied_round, arrival.parent


def stays(events: Iterable[Event]) -> dict[int, list[Segment]]:
    """Return the weights' stays in each member's slot, in order; the last stay of each is open."""
    return {
        member: [
            _segment(arrival, leaver.step if leaver else None, leaver.round if leaver else None)
            for arrival, leaver in zip(arrivals, [*arrivals[1:], None], strict=True)
        ]
        for member, arrivals in sorted(_arrivals(events).items())
    }


def roots(events: Iterable[Event]) -> dict[tuple[int, int], int]:
    """Return the member in which the weights of a stay began, by (member, from_round)."""
    arrivals = _arrivals(events)
    found: dict[tuple[int, int], int] = {}
    for event in (event for stays in arrivals.values() for event in stays):
        chain = [event]
        while (here := chain[-1]).parent is not None and (here.member, here.round) not in found:
            chain.append(_arrival(arrivals[here.parent], here.copied_round))
        root = found.get((here.member, here.round), here.member)
        found |= {(each.member, each.round): root for each in chain}
    return found


def schedule_of(path: Sequence[Segment]) -> list[Setting]:
    """Return an ancestry's hyperparameters over the steps, with one entry per change."""
    settings: list[Setting] = []
    for segment in path:
        if not settings or settings[-1].hyperparameters != segment.hyperparameters:
            settings.append(Setting(segment.from_step, segment.hyperparameters))
    return settings


def _arrival(arrivals: Sequence[Event], round: int) -> Event:
    """Return the event that brought the weights that a round scored; the round's own decision came later."""
    # search from the end: copied weights are mostly recent
    return next(event for event in reversed(arrivals) if event.round < max(round, 1))


def _arrivals(events: Iterable[Event]) -> dict[int, list[Event]]:
    """Return the events by which weights came into each member's slot, in order."""
    arrivals: dict[int, list[Event]] = {}
    for event in sorted(events, key=lambda event: event.round):
        arrivals.setdefault(event.member, []).append(event)
    return arrivals


def _segment(arrival: Event, to_step: int | None, to_round: int | None) -> Segment:
    return Segment(arrival.began, to_step, arrival.member, arrival.after, arrival.round, to_round)


def _parsed(text: str | None) -> Hyperparameters | None:
    return None if text is None else frozen(json.loads(text))
