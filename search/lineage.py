"""The lineage of a run: who copied whom, and from that where any member's weights and settings came from."""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from cluster.storage import Store
from policies.schedule import Setting
from search.errors import InputError
from search.records import LINEAGE

Hyperparameters = dict[str, Any]


class Event(NamedTuple):
    """A member's start, or its copy of `parent` after round `round`; scores are from before the copy.

    In a change a member is its own parent: it keeps its weights under other hyperparameters.
    """

    event: str  # "start", "copy" or "change"
    round: int
    step: int
    member: int
    score: float | None
    parent: int | None
    parent_score: float | None
    before: Hyperparameters | None
    after: Hyperparameters


class Segment(NamedTuple):
    """Weights trained in one member's slot, with the same hyperparameters all along."""

    from_step: int
    to_step: int | None  # None: to the end of what was asked for
    member: int
    hyperparameters: Hyperparameters
    from_round: int  # the decision that began it; it trained in the rounds after this one
    to_round: int | None


def read_lineage(store: Store) -> list[Event]:
    """Return the events of a run, starts first; raises InputError if there are none or parts are lost."""
    events = [
        Event(**row | {"before": _parsed(row["before"]), "after": json.loads(row["after"])})
        for row in read_rows(store, LINEAGE)
    ]
    events.sort(key=lambda event: (event.round, event.member))
    started = {event.member for event in events if event.event == "start"}
    named = {event.member for event in events} | {event.parent for event in events if event.parent is not None}
    if named - started:
        raise InputError(
            f"{store.uri}/{LINEAGE} must hold a start of every member, but has none of "
            f"{', '.join(map(str, sorted(named - started)))}: a part of it is missing."
        )
    return events


def read_rows(store: Store, name: str) -> list[dict[str, Any]]:
    """Return a table of the run directory as plain rows; raises InputError if it is not there or is empty."""
    try:
        rows: list[dict[str, Any]] = store.read_table(name).to_pylist()
    except FileNotFoundError:
        rows = []
    if not rows:
        raise InputError(
            f"{store.uri} must hold {name} with at least one row, but has none: "
            f"give the directory of a run that has finished a round."
        )
    return rows


def ancestry(events: Iterable[Event], member: int, round: int | None = None) -> list[Segment]:
    """Return where the weights of `member` trained, root first.

    With `round`, the weights are those that round scored, so its own decision is left out;
    without, those the member has now. The last segment is open: its `to_step` is None.
    """
    arrivals = _arrivals(events)
    path: list[Segment] = []
    to_step, to_round, slot = None, round, member
    while True:
        # what befell a parent from the copied round on is not in the copy
        arrival = [event for event in arrivals[slot] if to_round is None or event.round < max(to_round, 1)][-1]
        path.append(_segment(arrival, to_step, to_round))
        if arrival.parent is None:
            return path[::-1]
        to_step, to_round, slot = arrival.step, arrival.round, arrival.parent


def stays(events: Iterable[Event]) -> dict[int, list[Segment]]:
    """Return what passed through each member's slot, in order; the last stay of each is open."""
    return {
        member: [
            _segment(arrival, leaver.step if leaver else None, leaver.round if leaver else None)
            for arrival, leaver in zip(arrivals, [*arrivals[1:], None], strict=True)
        ]
        for member, arrivals in sorted(_arrivals(events).items())
    }


def roots(events: Iterable[Event]) -> dict[tuple[int, int], int]:
    """Return the member in which the weights of a stay began, by (member, from_round)."""
    current: dict[int, int] = {}
    found: dict[tuple[int, int], int] = {}
    for _, together in groupby(sorted(events, key=lambda event: event.round), lambda event: event.round):
        before = dict(current)  # a parent may copy in the same round: what it gave is what it had
        for event in together:
            current[event.member] = event.member if event.parent is None else before[event.parent]
            found[event.member, event.round] = current[event.member]
    return found


def schedule(path: Sequence[Segment]) -> list[Setting]:
    """Return an ancestry's hyperparameters over the steps, with one entry per change."""
    settings: list[Setting] = []
    for segment in path:
        if not settings or settings[-1].hyperparameters != segment.hyperparameters:
            settings.append(Setting(segment.from_step, segment.hyperparameters))
    return settings


def _arrivals(events: Iterable[Event]) -> dict[int, list[Event]]:
    """Return the events by which weights came into each member's slot, in order."""
    arrivals: dict[int, list[Event]] = {}
    for event in sorted(events, key=lambda event: event.round):
        arrivals.setdefault(event.member, []).append(event)
    return arrivals


def _segment(arrival: Event, to_step: int | None, to_round: int | None) -> Segment:
    return Segment(arrival.step, to_step, arrival.member, arrival.after, arrival.round, to_round)


def _parsed(text: str | None) -> Hyperparameters | None:
    return None if text is None else json.loads(text)
