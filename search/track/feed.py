"""What one tracker is sent, and how far it has been told: `track.json` of a run directory."""

import tempfile
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from pyarrow import fs

from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.messages import Row
from shoal.search.records.directory import TRACKED, export_member
from shoal.search.records.last import member_of
from shoal.search.records.tables import Event
from shoal.search.track.mlflow_runs import ServerRuns
from shoal.search.track.tensorboard import EventFiles
from shoal.search.track.told import Records
from shoal.search.track.wandb_runs import GroupRuns


class Tracker(Protocol):
    """What writes a run into one tracker. Any of these may raise; then the part is sent again."""

    place: str  # where it writes, in words
    only_grows: bool  # whether it keeps what it was told before a run went back to a checkpoint
    goes_on: bool  # whether it was told of earlier parts before

    def gone(self) -> bool: ...

    def begin_anew(self) -> None: ...

    def row(self, row: Row) -> None: ...

    def copied(self, member: int, copies: Sequence[Event]) -> None: ...

    def best(self, member: int, folder: str) -> None: ...

    def flush(self) -> None: ...

    def close(self, status: str) -> None: ...


TRACKERS_BY_KIND: dict[str, Any] = {"tensorboard": EventFiles, "mlflow": ServerRuns, "wandb": GroupRuns}


class Marks:
    """The key by which trackers know a run, and up to which part each of them was told."""

    def __init__(self, store: Store):
        self.store = store
        known = store.read_json(TRACKED, "key", "sent") if store.exists(TRACKED) else {}
        self.key: str = known.get("key") or uuid.uuid4().hex[:8]
        self.sent: dict[str, int] = known.get("sent", {})

    def forget(self) -> None:
        """Forget what was sent: with another key the run is a new one."""
        self.key, self.sent = uuid.uuid4().hex[:8], {}

    def write(self) -> None:
        self.store.write_json(TRACKED, {"key": self.key, "sent": self.sent})


class Feed:
    """Sends parts of the records to one tracker, in order."""

    def __init__(self, run: Run, given: Any, records: Records, marks: Marks):
        self.run, self.records, self.marks = run, records, marks
        self.tracker: Tracker = TRACKERS_BY_KIND[given.kind](run, given, marks.key)
        if self.tracker.gone():
            self.sent = 0
        self.tracker.goes_on = self.sent > 0
        self.taken: set[int] = set()  # places of the rows that were taken of a part that was not taken whole

    @property
    def sent(self) -> int:
        """The last part that the tracker has taken."""
        return self.marks.sent.get(self.tracker.place, 0)

    @sent.setter
    def sent(self, part: int) -> None:
        self.marks.sent[self.tracker.place] = part

    def send(self, part: int) -> None:
        """Send what is missing up to a part; of a part that is written again, that part."""
        if part <= self.sent and not self.tracker.only_grows:
            self.sent = part - 1
        for each in range(self.sent + 1, part + 1):
            told = self.records.told(each)
            for place, row in enumerate(told.rows):
                if place not in self.taken:
                    self.tracker.row(row)
                    self.taken.add(place)
            for member, copies in told.copies.items():
                self.tracker.copied(member, copies)
            self.tracker.flush()
            self.sent, self.taken = each, set()
        self.marks.write()

    def close(self, status: str) -> None:
        """Tell the tracker how the run stands, and let it go."""
        self.tracker.close(status)

    def send_best(self, store: Store) -> None:
        """Send the files of the best member."""
        member = member_of(self.run, store, None).member
        with tempfile.TemporaryDirectory() as folder:
            if store.exists("best"):
                fs.copy_files(store.path("best"), folder, source_filesystem=store.filesystem)
            else:
                export_member(self.run, store, member, Store(folder))
            self.tracker.best(member, folder)
