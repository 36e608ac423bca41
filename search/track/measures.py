"""What trackers are told of a member's report, in numbers and in words."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from shoal.search.config.run import Run
from shoal.search.messages import Row
from shoal.search.records.directory import flat_settings
from shoal.search.records.tables import Event


def told_numbers(run: Run, row: Row) -> Iterator[tuple[str, float]]:
    """Yield what a row tells in numbers, by the names that a tracker shows; what is not finite is left out."""
    found = {"score": row.score, "train_loss": row.train_loss}
    found |= {f"loss/{group}": loss for group, loss in row.losses.items()}
    found |= dict(row.measures)
    if row.mixture is not None:
        found |= {f"proportion/{each.group}": each.proportion for each in row.mixture.groups}
    if row.kept is not None:
        found["kept"] = row.kept
    if row.cost is not None:
        found["cost"] = row.cost
    if run.takes_rows and row.train_seconds > 0:
        rows = run.population.interval * run.training.batch
        each, name = (1, "rows") if run.rows == "columns" else (run.data.sequence_length, "tokens")
        found[f"{name}_per_second"] = rows * each / row.train_seconds
    settings = flat_settings(dict(row.hyperparameters))
    found |= {f"hyperparameters/{name}": float(value) for name, value in settings.items() if numeric(value)}
    yield from ((name, value) for name, value in found.items() if math.isfinite(value))


def words(row: Row) -> dict[str, str]:
    """Return as JSON those hyperparameters of a row that are no numbers."""
    settings = flat_settings(dict(row.hyperparameters))
    return {name: json.dumps(value) for name, value in settings.items() if name and not numeric(value)}


def numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def copies_in_words(copies: Sequence[Event], most: int) -> str:
    """Return the copies of a member, newest first, in at most so many letters."""
    said = ", ".join(f"member {each.parent} at step {each.step}" for each in reversed(copies))
    return said if len(said) <= most else said[: most - 3] + "..."
