"""What a run tells Prometheus: every round as the metrics that `shoal.cluster.metrics` declares."""

import math
import statistics
import time
from collections.abc import Sequence
from types import TracebackType

from shoal.cluster import metrics
from shoal.policies.population import Order
from shoal.search.config.run import Run
from shoal.search.corpus.text import proportions
from shoal.search.driver.conductor import Watcher
from shoal.search.members.ledger import ledger_rows
from shoal.search.messages import Row


class Watchers:
    """Several watchers as one."""

    def __init__(self, *watchers: Watcher):
        self.watchers = watchers

    def say(self, line: str) -> None:
        for watcher in self.watchers:
            watcher.say(line)

    def failed(self, row: Row, trace: str) -> None:
        for watcher in self.watchers:
            watcher.failed(row, trace)

    def round(self, round_: int, rows: Sequence[Row], orders: Sequence[Order]) -> None:
        for watcher in self.watchers:
            watcher.round(round_, rows, orders)

    def recorded(self, part: int) -> None:
        for watcher in self.watchers:
            watcher.recorded(part)


class Measure:
    """A watcher that emits; gauges live from the first round to the end of the run."""

    def __init__(self, run: Run):
        self.run, self.meter = run, metrics.Meter(run.label)
        self.steps: dict[int, int] = {}  # member -> its step when it was last seen
        self.decided: dict[int, float] = {}  # round -> time of its decision

    def __enter__(self) -> "Measure":
        self.meter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.meter.__exit__()

    def say(self, line: str) -> None:
        """Do nothing: words are for people."""

    def failed(self, row: Row, trace: str) -> None:
        self.meter.add(metrics.FAILURES, 1)

    def round(self, round_: int, rows: Sequence[Row], orders: Sequence[Order]) -> None:
        meter, run = self.meter, self.run
        scores = [row.score for row in rows if math.isfinite(row.score)]
        meter.set(metrics.STEP, min(row.step for row in rows))
        meter.set(metrics.FAILED_MEMBERS, sum(row.failed for row in rows))
        if scores:
            meter.set(metrics.BEST_SCORE, max(scores))
            meter.set(metrics.MEDIAN_SCORE, statistics.median(scores))
            meter.set(metrics.WORST_SCORE, min(scores))
        meter.add(metrics.EXPLOIT_COUNT, sum(order.donor != order.member for order in orders))
        steps = self.trained(rows)
        meter.add(metrics.MEMBER_STEPS, steps)
        self.lag(round_)
        meter.add(metrics.ROW_COUNT, steps * a_step(rows, "rows"))
        meter.add(metrics.TOKEN_COUNT, steps * a_step(rows, "tokens"))
        if run.takes_rows:
            self.groups(rows)

    def recorded(self, part: int) -> None:
        """Do nothing: what is decided was measured."""

    def trained(self, rows: Sequence[Row]) -> int:
        """Return how many steps all members have trained since they were last seen; they need not be level."""
        steps = 0
        for row in rows:
            before = self.steps.get(row.member, row.step - self.run.population.interval)
            # one that has failed stands still, though its rounds go on
            steps += 0 if row.failed else max(0, row.step - before)
            self.steps[row.member] = row.step
        return steps

    def lag(self, round_: int) -> None:
        """Say how old the newest whole checkpoint was: members write theirs during the next interval."""
        self.decided[round_] = now = time.monotonic()
        every = self.run.checkpoint.every
        whole = (round_ - 1) // every * every
        self.meter.set(metrics.CHECKPOINT_LAG, now - self.decided.get(whole, min(self.decided.values())))
        self.decided = {number: moment for number, moment in self.decided.items() if number >= whole}

    def groups(self, rows: Sequence[Row]) -> None:
        names = list(self.run.data.groups)
        fixed = dict(zip(names, map(float, proportions(self.run, names)), strict=True))
        best = max(rows, key=lambda row: row.score if math.isfinite(row.score) else -math.inf)
        for group in names:
            mixed = mixture(rows, group)
            plain = 0.0 if group in self.run.unseen else fixed[group]
            self.meter.set(metrics.PROPORTION, statistics.fmean(mixed) if mixed else plain, group=group)
            if group in best.losses:
                self.meter.set(metrics.GROUP_LOSS, best.losses[group], group=group)
        if kept := [row.kept for row in rows if row.kept is not None]:
            self.meter.set(metrics.KEPT_FRACTION, statistics.fmean(kept))
        if self.run.sampling.view == "brood":
            self.meter.set(metrics.LEDGER_ROWS, ledger_rows(self.run))


def a_step(rows: Sequence[Row], unit: str) -> float:
    """Return how many rows or tokens a member trains in a step."""
    return max((getattr(row, unit) / row.step for row in rows if row.step), default=0.0)


def mixture(rows: Sequence[Row], group: str) -> list[float]:
    """Return a group's proportion with each member whose mixture a policy sets."""
    told = [each for row in rows if row.mixture for each in row.mixture.groups]
    return [each.proportion for each in told if each.group == group]
