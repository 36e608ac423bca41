"""How long exploits and checkpoints take a worker, for the members' next rows of metrics."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from shoal.search.messages import Row

EXPLOIT, CHECKPOINT = "exploit_seconds", "checkpoint_seconds"


class Spent:
    """Seconds of each member since its last row."""

    def __init__(self) -> None:
        self.seconds: dict[int, dict[str, float]] = {}

    @contextmanager
    def on(self, kind: str, members: Collection[int]) -> Iterator[None]:
        """Share out what is spent in this context among some members; there may be none."""
        began = time.perf_counter()
        yield
        each = (time.perf_counter() - began) / max(len(members), 1)
        for member in members:
            known = self.seconds.setdefault(member, {})
            known[kind] = known.get(kind, 0.0) + each

    def added(self, row: Row) -> Row:
        """Return a member's row with its seconds, which are counted from 0 again."""
        spent: dict[str, Any] = self.seconds.pop(row.member, {})
        return row._replace(**spent)
