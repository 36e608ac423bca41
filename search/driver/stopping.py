"""What ends a run as a whole before its last step: `stop:` in its file."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal.search.config.sections import Stop
from shoal.search.messages import Row


@dataclass
class Stopping:
    """Hears every report, and says once why the run is to end."""

    stop: Stop | None
    members: int
    seconds: float = 0.0  # trained before this driver began
    best: float = -math.inf
    reports: int = 0  # since the best score was reached, of all members together
    reason: str = ""
    began: float = field(default_factory=lambda: time.monotonic())

    def hear(self, rows: Sequence[Row]) -> None:
        """Take in reports; `reason` says afterwards why the run is to end, if it is."""
        if self.stop is None or self.reason:
            return
        told = [row for row in rows if row.scored]
        for row in told:
            self.reports += 1
            if row.score > self.best:  # NaN is not
                self.best, self.reports = row.score, 0
        self.reason = self.why(self.stop) if told else ""

    def why(self, stop: Stop) -> str:
        if stop.score is not None and self.best >= stop.score:
            return f"a member has reached the score {self.best:.6g} (stop.score: {stop.score:g})"
        if stop.patience is not None and self.reports >= stop.patience * self.members:
            return f"no better score in {stop.patience} reports of each member (stop.patience)"
        if stop.minutes is not None and self.trained() >= 60 * stop.minutes:
            return f"{stop.minutes:g} minutes are over (stop.minutes)"
        return ""

    def trained(self) -> float:
        """Return the seconds of training so far."""
        return self.seconds + time.monotonic() - self.began

    def plain(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; a best score that nobody has reached is null."""
        best = self.best if math.isfinite(self.best) else None
        return {"seconds": self.trained(), "best": best, "reports": self.reports, "reason": self.reason}

    @classmethod
    def of(cls, stop: Stop | None, members: int, plain: Mapping[str, Any]) -> "Stopping":
        """Return it as a checkpoint has kept it, or at its beginning."""
        if not plain:
            return cls(stop, members)
        best = -math.inf if plain["best"] is None else plain["best"]
        return cls(stop, members, plain["seconds"], best, plain["reports"], plain["reason"])
