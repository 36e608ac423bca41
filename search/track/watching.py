"""A watcher that tells trackers of each round, in a thread: one that is slow or down costs the run nothing."""

import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from shoal.policies.population import Order
from shoal.search.config.run import Run
from shoal.search.messages import Row
from shoal.search.traces import in_one_line
from shoal.search.track.tensorboard import EventFiles

SECONDS_TO_END = 30.0  # that the last rounds may take; what is missing then, `shoal track` sends
TRACKERS_BY_KIND = {"tensorboard": EventFiles}


class Told(NamedTuple):
    """A round, as trackers are told of it."""

    rows: Sequence[Row]
    orders: Sequence[Order]


class Tracking:
    """Sends rounds to the trackers of a run; what one did not take is sent again with the next."""

    def __init__(self, run: Run, say: Callable[[str], None]):
        self.run, self.say_once = run, say
        self.trackers = [TRACKERS_BY_KIND[each.kind](run, each) for each in run.track]
        self.left: list[list[Told]] = [[] for _ in self.trackers]  # rounds that each has yet to take
        self.down: set[int] = set()  # trackers of which it was said that they are down
        self.rounds: queue.Queue[Told | None] = queue.Queue()
        self.thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> "Tracking":
        if self.trackers:
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.trackers:
            return
        self.rounds.put(None)
        self.thread.join(SECONDS_TO_END)
        if missing := max(map(len, self.left)) + self.rounds.qsize():
            self.say_once(f"track: {missing} rounds are missing; `shoal track {self.run.directory}` sends them")

    def say(self, line: str) -> None:
        """Do nothing: words are for people."""

    def failed(self, row: Row, trace: str) -> None:
        """Do nothing: a failed member has no score, which shows."""

    def round(self, round_: int, rows: Sequence[Row], orders: Sequence[Order]) -> None:
        if self.trackers:
            self.rounds.put(Told(rows, orders))

    def _send(self) -> None:
        while (told := self.rounds.get()) is not None:
            for place, tracker in enumerate(self.trackers):
                self.left[place].append(told)
                self._send_to(place, tracker)
        for tracker in self.trackers:
            tracker.close()

    def _send_to(self, place: int, tracker: Any) -> None:
        try:
            while self.left[place]:
                send(tracker, self.left[place][0])
                del self.left[place][0]
            self.down.discard(place)
        except Exception as error:  # a tracker may raise anything, and the run must not hear of it
            if place not in self.down:
                self.say_once(f"track: {self.run.track[place].kind} takes nothing: {in_one_line(str(error))}")
            self.down.add(place)


def send(tracker: Any, told: Told) -> None:
    """Tell a tracker of a round."""
    steps = {row.member: row.step for row in told.rows}
    for row in told.rows:
        tracker.row(row)
    for order in told.orders:
        tracker.order(order, steps[order.member])
    tracker.flush()
