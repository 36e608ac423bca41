"""A run in TensorBoard: each member is a run of its own, below one folder."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from typing import Any

from shoal.policies.population import Order
from shoal.search.config.run import Run
from shoal.search.config.tracking import TensorBoard
from shoal.search.messages import Row
from shoal.search.records.directory import flat_settings


class EventFiles:
    """Writes rows and copies as event files; what a resumed run writes again hides what was there."""

    def __init__(self, run: Run, given: TensorBoard):
        self.run = run
        self.folder = os.path.abspath(given.directory or f"{run.directory}/tensorboard")
        self.writers: dict[int, Any] = {}

    def begin_anew(self) -> None:
        """Forget what was written before."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def row(self, row: Row) -> None:
        writer = self.writer(row)
        for name, value in measures(self.run, row):
            writer.add_scalar(name, value, row.step)
        for name, value in flat_settings(dict(row.hyperparameters)).items():
            if name and not is_number(value):
                writer.add_text(f"hyperparameters/{name}", json.dumps(value), row.step)

    def order(self, order: Order, step: int) -> None:
        if order.member in self.writers:
            self.writers[order.member].add_text("copy", f"from member {order.donor}", step)

    def flush(self) -> None:
        for writer in self.writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()

    def writer(self, row: Row) -> Any:
        from tensorboardX import SummaryWriter  # late: only who tracks needs it

        if row.member not in self.writers:
            place = os.path.join(self.folder, f"member-{row.member:05d}")
            # events of this step and later are from before a resume
            purged = row.step if os.path.isdir(place) else None
            self.writers[row.member] = SummaryWriter(place, purge_step=purged)
        return self.writers[row.member]


def measures(run: Run, row: Row) -> Iterator[tuple[str, float]]:
    """Yield what a row tells in numbers, by the names that a tracker shows; what is not finite is left out."""
    found = {"score": row.score, "train_loss": row.train_loss}
    found |= {f"loss/{group}": loss for group, loss in row.losses.items()}
    if row.mixture is not None:
        found |= {f"proportion/{each.group}": each.proportion for each in row.mixture.groups}
    if row.kept is not None:
        found["kept"] = row.kept
    if run.takes_rows and row.train_seconds > 0:
        rows = run.population.interval * run.training.batch
        each, name = (1, "rows") if run.rows == "columns" else (run.data.sequence_length, "tokens")
        found[f"{name}_per_second"] = rows * each / row.train_seconds
    settings = flat_settings(dict(row.hyperparameters))
    found |= {f"hyperparameters/{name}": float(value) for name, value in settings.items() if is_number(value)}
    yield from ((name, value) for name, value in found.items() if math.isfinite(value))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
