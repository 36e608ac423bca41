"""What a person sees while a run goes on: a live table, a bar in a notebook, or plain lines for nobody."""

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shoal.policies.population import Order
from shoal.search.config.run import Run
from shoal.search.driver.notebook import CellBar, in_notebook
from shoal.search.messages import Row


class Progress:
    """A live display of members, best loss, exploits, tokens a second and time left."""

    def __init__(self, run: Run, console: Console, title: str = ""):
        self.run, self.console, self.title = run, console, title or run.name
        self.began = self.first = time.monotonic()
        self.resumed: int | None = None
        self.round_ = self.exploits = 0
        self.rows: Sequence[Row] = ()
        self.donors: dict[int, int] = {}
        self.bar: CellBar | None = None
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Progress":
        if in_notebook():
            self.bar = CellBar()
            self.bar.show(0, self.run.rounds, f"{self.title}: starting {self.run.population.members} members")
        elif self.console.is_terminal:
            self.live.start()
        else:
            self.console.print(f"{self.title}: starting {self.run.population.members} members")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def round(self, round_: int, rows: Sequence[Row], orders: Sequence[Order]) -> None:
        if self.resumed is None:
            # the first round's own time holds the workers' start, so speed counts from its end
            self.resumed, self.first = round_, time.monotonic()
        self.round_, self.rows, self.exploits = round_, rows, self.exploits + len(orders)
        self.donors = {order.member: order.donor for order in orders}
        if self.bar is not None:
            self.bar.show(round_, self.run.rounds, self.line())
        elif not self.console.is_terminal:
            self.console.print(self.line(), highlight=False, soft_wrap=True)

    def recorded(self, part: int) -> None:
        """Do nothing: what is decided was shown."""

    def say(self, line: str) -> None:
        self.console.print(f"{self.title}: {line}", highlight=False, soft_wrap=True, markup=False)

    def failed(self, row: Row, trace: str) -> None:
        why = trace.strip().splitlines()[-1]
        self.console.print(
            f"{self.title}: member {row.member} failed at step {row.step}: {why} "
            f"({self.run.directory}/failures)",
            highlight=False,
            soft_wrap=True,
        )

    def line(self) -> str:
        best = max(self.rows, key=lambda row: -math.inf if math.isnan(row.score) else row.score)
        parts = [
            f"{self.title}: step {min(row.step for row in self.rows)}/{self.run.training.steps}",
            f"best {self.measure(best.score)} (member {best.member})",
            f"{self.exploits} exploits",
            self.speed(),
            f"{self.left()} left",
        ]
        return "  ".join(part for part in parts if part)

    def render(self) -> Group:
        elapsed = time.monotonic() - self.began
        if not self.rows:
            return Group(Text(f"{self.title}: starting Ray Train workers ... {elapsed:.0f} s"))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("member", "brood", self.unit, "train", "copied", *self.run.hyperparameters):
            table.add_column(name, justify="right")
        for row in sorted(self.rows, key=lambda row: (math.isnan(row.score), -row.score)):
            table.add_row(*self.cells(row))
        return Group(Text(self.line(), style="bold"), table)

    def cells(self, row: Row) -> list[str]:
        donor = self.donors.get(row.member)
        return [
            str(row.member),
            str(row.brood),
            self.measure(row.score).split()[-1],
            f"{row.train_loss:.4f}",
            "" if donor is None else f"from {donor}",
            *(show(row.hyperparameters.get(name)) for name in self.run.hyperparameters),
        ]

    @property
    def unit(self) -> str:
        # the losses of a run need no more words than that
        return "loss" if self.run.ranked_by == "validation loss" else self.run.ranked_by

    def measure(self, score: float) -> str:
        if math.isnan(score):
            return f"{self.unit} ?"
        return f"{self.unit} {-score if self.run.by_loss else score:.4f}"

    def rounds_per_second(self) -> float:
        done = self.round_ - (self.resumed or 0)
        return done / max(time.monotonic() - self.first, 1e-9) if done else 0.0

    def speed(self) -> str:
        """Return tokens a second, or rows of classes that have no tokens; nothing where neither is known."""
        steps = self.rounds_per_second() * self.run.population.interval
        for unit in ("tokens", "rows"):
            each = sum(getattr(row, unit) / row.step for row in self.rows if row.step)
            if steps * each >= 1:
                return f"{steps * each:,.0f} {unit}/s"
        return ""

    def left(self) -> str:
        speed = self.rounds_per_second()
        if not speed:
            return "?"
        minutes, seconds = divmod(round((self.run.rounds - self.round_) / speed), 60)
        return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def show(value: Any) -> str:
    """Return a hyperparameter's value, short."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(show, value))}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
