"""What trackers are told: the parts of a run's records, as they stand in its directory."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from shoal.cluster.storage import Store
from shoal.search.messages import GroupMixture, MixtureAccount, Row
from shoal.search.records.lineage import event_of
from shoal.search.records.tables import LINEAGE, METRICS, MIXING, Event, read_part, round_of, row_of


class Told(NamedTuple):
    """A part of the records: a round, or of members without rounds as many reports as there are members."""

    rows: Sequence[Row]
    copies: Mapping[int, Sequence[Event]]  # member that copied in this part -> all its copies up to here


class Records:
    """Reads the records of a run part by part; the lineage that was read is kept."""

    def __init__(self, store: Store):
        self.store = store
        self.read: set[int] = set()  # parts of the lineage that were read
        self.events: dict[int, list[tuple[int, Event]]] = {}  # member -> its events, each with its part

    def parts(self) -> list[int]:
        """Return the numbers of all parts of the metrics."""
        return [round_of(name) for name in self.store.parts(METRICS)]

    def forget(self, part: int) -> None:
        """Forget a part and those after it: the run goes on from the part before, and writes them again."""
        self.read = {place for place in self.read if place < part}
        for member, events in self.events.items():
            self.events[member] = [each for each in events if each[0] < part]

    def told(self, part: int) -> Told:
        """Return what a part tells; of an asynchronous run it may have no row."""
        self.read_lineage(part)
        mixtures = self.mixtures(part)
        rows = [
            row._replace(hyperparameters=self.held(row), mixture=mixtures.get((row.round, row.member)))
            for row in map(row_of, self.rows(METRICS, part))
        ]
        copies = {member: self.copies(member, part) for member in sorted(self.events)}
        return Told(rows, {member: found for member, found in copies.items() if found})

    def read_lineage(self, part: int) -> None:
        for place in map(round_of, self.store.parts(LINEAGE)):
            if place <= part and place not in self.read:
                self.read.add(place)
                for event in map(event_of, self.rows(LINEAGE, place)):
                    self.events.setdefault(event.member, []).append((place, event))

    def held(self, row: Row) -> Mapping[str, Any]:
        """Return the hyperparameters of a row's score: those before the decision of its own round."""
        own = self.events[row.member]
        return next(event.after for _, event in reversed(own) if event.round < row.round)

    def copies(self, member: int, part: int) -> list[Event]:
        """Return a member's copies up to a part, in order; none if it made none in that part."""
        copies = [each for each in self.events[member] if each[0] <= part and each[1].event == "copy"]
        return [event for _, event in copies] if copies and copies[-1][0] == part else []

    def mixtures(self, part: int) -> dict[tuple[int, int], MixtureAccount]:
        """Return by round and member the proportions of its groups."""
        shares: dict[tuple[int, int], list[GroupMixture]] = {}
        for each in self.rows(MIXING, part):
            share = GroupMixture(each["group"], each["proportion"], each["seen"], each["rows"], [], [])
            shares.setdefault((each["round"], each["member"]), []).append(share)
        return {place: MixtureAccount(found, "", 0, 0, 0) for place, found in shares.items()}

    def rows(self, table: str, part: int) -> list[dict[str, Any]]:
        """Return the rows of a part of a table; none where the part is not there."""
        name = f"{table}/part-{part:06d}.parquet"
        return read_part(self.store, name).to_pylist() if self.store.exists(name) else []
