"""Every metric of a run, declared once: emitters, the Grafana dashboard, alerts and tests read this list.

Labels are the run, the group of data or the phase of a worker's time: never a member, a row or a step,
so a run of any size makes the same few series.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ray.util import metrics

HEARTBEAT_SECONDS = 5.0  # Ray drops a gauge that was not set for about half a minute
PHASES = ("compute", "data", "exchange", "checkpoint")


@dataclass(frozen=True)
class Metric:
    """One metric: `name` in the code, `series` in Prometheus."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ("run",)
    unit: str = "short"  # as Grafana names units

    @property
    def series(self) -> str:
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


BEST_SCORE = Metric("shoal_best_score", "gauge", "Best score of the last round; higher is better.")
MEDIAN_SCORE = Metric("shoal_median_score", "gauge", "Median score of the last round's members.")
WORST_SCORE = Metric("shoal_worst_score", "gauge", "Worst score of the last round's members.")
STEP = Metric("shoal_step", "gauge", "Steps that each member has trained.")
FAILED_MEMBERS = Metric("shoal_failed_members", "gauge", "Members without a score in the last round.")
CHECKPOINT_LAG = Metric(
    "shoal_checkpoint_lag_seconds",
    "gauge",
    "Age of the newest whole checkpoint at the last decision: what a kill would have lost.",
    unit="s",
)
PROPORTION = Metric(
    "shoal_proportion", "gauge", "Share of a group in the members' batches.", ("run", "group"), "percentunit"
)
GROUP_LOSS = Metric(
    "shoal_group_loss", "gauge", "Best member's validation loss on a group, in nats.", ("run", "group")
)
KEPT_FRACTION = Metric(
    "shoal_kept_fraction",
    "gauge",
    "Share of the rows that a sampling policy keeps, over members.",
    unit="percentunit",
)
LEDGER_ROWS = Metric("shoal_ledger_rows", "gauge", "Rows whose losses the broods' shared ledger holds.")
EXPLOIT_COUNT = Metric("shoal_exploits", "counter", "Copies that members have made of better ones.")
FAILURES = Metric("shoal_failures", "counter", "Times that a member failed.")
MEMBER_STEPS = Metric("shoal_member_steps", "counter", "Steps trained, over all members.")
ROW_COUNT = Metric("shoal_rows", "counter", "Rows trained on, over all members.")
TOKEN_COUNT = Metric("shoal_tokens", "counter", "Tokens trained on, over all members.")
SECONDS = Metric(
    "shoal_seconds", "counter", "Seconds that workers spent, by phase.", ("run", "phase"), unit="s"
)

METRICS = (
    BEST_SCORE,
    MEDIAN_SCORE,
    WORST_SCORE,
    STEP,
    FAILED_MEMBERS,
    CHECKPOINT_LAG,
    PROPORTION,
    GROUP_LOSS,
    KEPT_FRACTION,
    LEDGER_ROWS,
    EXPLOIT_COUNT,
    FAILURES,
    MEMBER_STEPS,
    ROW_COUNT,
    TOKEN_COUNT,
    SECONDS,
)


class Meter:
    """Emits one run's metrics from this process; between `with` and its end it keeps gauges alive."""

    def __init__(self, run: str):
        self.run = run
        self.made: dict[str, Any] = {}
        self.gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.lock, self.over = threading.Lock(), threading.Event()

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        key = (metric.name, tuple(sorted({"run": self.run, **labels}.items())))
        with self.lock:
            self.gauges[key] = value
            self._made(metric).set(value, tags=dict(key[1]))

    def add(self, metric: Metric, value: float, **labels: str) -> None:
        if value > 0:  # Ray refuses to count nothing
            with self.lock:
                self._made(metric).inc(value, tags={"run": self.run, **labels})

    def _made(self, metric: Metric) -> Any:
        if metric.name not in self.made:
            kind = metrics.Gauge if metric.kind == "gauge" else metrics.Counter
            self.made[metric.name] = kind(metric.name, metric.help, metric.labels)
        return self.made[metric.name]

    def refresh(self) -> None:
        with self.lock:
            for (name, labels), value in self.gauges.items():
                self.made[name].set(value, tags=dict(labels))

    def __enter__(self) -> "Meter":
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()

    def _beat(self) -> None:
        while not self.over.wait(HEARTBEAT_SECONDS):
            self.refresh()


class Clock:
    """How long this process spent in each phase; what a phase spends in an inner one is the inner one's."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(PHASES, 0.0)
        self.inner = 0.0

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        outer, self.inner, began = self.inner, 0.0, time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - began
            self.spent[name] += passed - self.inner
            self.inner = outer + passed

    def flush(self, meter: Meter) -> None:
        """Count what was spent since the last flush."""
        for name, seconds in self.spent.items():
            meter.add(SECONDS, seconds, phase=name)
            self.spent[name] = 0.0


CLOCK = Clock()  # a Train worker is one process, and its members train on one thread
