"""A watcher that tells trackers of a run, in a thread: one that is slow or down costs the run nothing."""

import queue
import shlex
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType

from shoal.cluster import ending
from shoal.cluster.storage import Store
from shoal.policies.population import Order
from shoal.search.config.run import Run
from shoal.search.messages import Row
from shoal.search.traces import in_one_line
from shoal.search.track.feed import Feed, Marks
from shoal.search.track.told import Records

SECONDS_FOR_TRACKERS = (
    30.0  # that the last parts may take, and then the best member; `shoal track` sends the rest
)


class Tracking:
    """Tells the trackers of a run what its records hold; what one did not take is sent with the next part."""

    def __init__(self, run: Run, store: Store, say: Callable[[str], None]):
        self.run, self.store, self.say_once = run, store, say
        self.records = Records(store)
        self.feeds: list[Feed] = []
        self.last = 0  # the newest part
        self.down: set[int] = set()  # trackers of which it was said that they are down
        self.parts: queue.Queue[int | str] = queue.Queue()  # at last the run's status
        self.thread = threading.Thread(target=self._send, name="track", daemon=True)

    def __enter__(self) -> "Tracking":
        if self.run.track:
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.run.track:
            return
        signalled = ending.came() or kind is KeyboardInterrupt
        self.parts.put("done" if error is None else "interrupted" if signalled else "failed")
        self.thread.join(1.0 if signalled else SECONDS_FOR_TRACKERS)
        if any(feed.sent < self.last for feed in self.feeds) or self.thread.is_alive():
            where = shlex.quote(self.run.directory)
            self.say_once(f"track: the last rounds are missing; `shoal track {where}` sends them")

    def say(self, line: str) -> None:
        """Do nothing: words are for people."""

    def failed(self, row: Row, trace: str) -> None:
        """Do nothing: a failed member has no score, which shows."""

    def round(self, round_: int, rows: Sequence[Row], orders: Sequence[Order]) -> None:
        """Do nothing: what is decided is told when it is recorded."""

    def recorded(self, part: int) -> None:
        if self.run.track:
            self.parts.put(part)

    def _send(self) -> None:
        try:
            marks = Marks(self.store)
            self.feeds = [Feed(self.run, each, self.records, marks) for each in self.run.track]
        except Exception as error:  # the run goes on without its trackers
            self.say_once(f"track: nothing is sent: {in_one_line(str(error))}")
            return
        while not isinstance(part := self.parts.get(), str):
            if part <= self.last:
                self.records.forget(part)
            self.last = part
            for place in range(len(self.feeds)):
                self._try(place, partial(Feed.send, part=part))
        for place in sorted(self.down):  # once more, for what is missing
            self._try(place, partial(Feed.send, part=self.last))
        for place in set(range(len(self.feeds))) - self.down:
            self._try(place, partial(Feed.close, status=part))

    def _try(self, place: int, what: Callable[[Feed], None]) -> None:
        try:
            what(self.feeds[place])
            self.down.discard(place)
        except Exception as error:  # a tracker may raise anything, and the run must not hear of it
            if place not in self.down:
                kind = self.run.track[place].kind
                self.say_once(f"track: {kind} takes nothing: {in_one_line(str(error))}")
            self.down.add(place)
