"""Broods come and go with the nodes: when another number of them fits, they begin anew from the checkpoint."""

import threading
from collections.abc import Callable
from types import TracebackType

LOOKS = 3  # in a row that must agree: a node that only restarts changes nothing
SECONDS_BETWEEN_LOOKS = 10.0


class Regrouped(Exception):
    """The broods were sent home because another number of them finds room now."""

    def __init__(self, before: int, after: int):
        super().__init__(
            f"there is room for {after} broods in place of {before}; going on from the last checkpoint"
        )


class Room:
    """Looks for a change of room beside a run; `fitting` counts the broods that the cluster can hold now."""

    def __init__(self, broods: int, fitting: Callable[[], int], send_home: Callable[[], None]):
        self.broods, self.fitting, self.send_home = broods, fitting, send_home
        self.after = broods
        self.over = threading.Event()

    def __enter__(self) -> "Room":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()

    def _watch(self) -> None:
        seen: list[int] = []
        while not self.over.wait(SECONDS_BETWEEN_LOOKS):
            seen = [*seen, self.fitting()][-LOOKS:]
            if len(seen) == LOOKS and len(set(seen)) == 1 and seen[0] != self.broods:
                self.after = seen[0]
                self.send_home()
                return

    def check(self) -> None:
        """Raise Regrouped if the run ended for that."""
        if self.after != self.broods:
            raise Regrouped(self.broods, self.after)
