"""The exact inductive bias of a population whose members differ by their seeds alone."""

import math
from collections.abc import Sequence

import numpy as np

from shoal.policies.inductive_bias import FURTHEST_BELOW, LEAST_ERRORS, Bias, inductive_bias
from shoal.search.errors import InputError
from shoal.search.report.page import html_table, section
from shoal.search.report.story import Story, finite
from shoal.search.report.wording import decimal

SHARES_OF_LEAST = (1.0, 0.9, 0.8, 0.65, 0.5)  # shares of the least error that was reached


def bias_of(story: Story, at: float, column: str = "", fitted: float | None = None) -> Bias:
    """Return the inductive bias of a finished population at the error `at`; see `member_errors`.

    Raises InputError where its members are no independent sample, or say too little.
    """
    if problem := no_sample(story):
        raise InputError(f"{story.name}: {problem}")
    try:
        return inductive_bias(member_errors(story, column, fitted), at, np.random.default_rng(0))
    except ValueError as error:
        raise InputError(f"{story.name}: {error}") from error


def no_sample(story: Story) -> str:
    """Return why the members are no sample of networks that differ by chance alone, or nothing."""
    if story.status != "done":
        return f"must be finished, but is {story.status}."
    if story.copies or any(event.event == "change" for event in story.events):
        return "members copied or changed; they are independent with population.exploit: none alone."
    if any(event.after != story.events[0].after for event in story.events):
        return "all members must have the same hyperparameters; leave `hyperparameters` out, or give `starts`."
    seeds = [start.get("seed", 0) for start in story.settings.get("starts") or []]
    if len(set(seeds)) < len(seeds):
        return "two members began with equal weights; give each entry of `starts` a seed of its own."
    return ""


def member_errors(story: Story, column: str = "", fitted: float | None = None) -> list[float]:
    """Return each member's held-out error at its last report: a column, or else the mean of its losses.

    With `fitted` only members count whose last training loss is at most so large: others have not fitted
    their rows. Members that failed do not count.
    """
    names = [column] if column else [f"loss_{group}" for group in story.groups]
    found = []
    for rows in story.rows.values():
        last = rows[-1]
        values = [value for name in names if (value := finite(last.get(name))) is not None]
        trained = finite(last.get("train_loss"))
        if not values or (fitted is not None and (trained is None or trained > fitted)):
            continue
        found.append(float(np.mean(values)))
    if not found and column:
        raise InputError(f"{story.name}: the metrics have no numbers called {column}.")
    return found


def inductive(story: Story) -> str:
    """Return the table of the inductive bias at several errors, or nothing where the run is no such sample."""
    if no_sample(story):
        return ""
    errors = member_errors(story)
    if len(errors) < LEAST_ERRORS or not min(errors) > 0:
        return ""
    rows = table_rows(errors)
    if not rows:
        return ""
    mean = decimal(float(np.mean(errors)))
    about = (
        f"How much must be told beyond rows and network to reach a held-out loss: -log P(loss is at most so "
        f"large), from {len(errors)} members that differ by chance alone (mean {mean}, least "
        f"{decimal(min(errors))}). Compare networks at one loss, and only with their intervals: the number is "
        f"brittle in it. Members that have not fitted their rows count too."
    )
    table = html_table(["held-out loss", "nats", "95 % interval", "bits"], rows, label="Inductive bias")
    return section("Inductive bias", f'<p class="soft">{about}</p>', table)


def table_rows(errors: Sequence[float]) -> list[list[str]]:
    least = float(np.mean(errors)) - FURTHEST_BELOW * float(np.std(errors, ddof=1))
    rows = []
    for share in SHARES_OF_LEAST:
        at = share * min(errors)
        if at < least or not np.std(errors) > 0:
            continue
        found = inductive_bias(errors, at, np.random.default_rng(0))
        interval = f"{found.low:.2f} to {found.high:.2f}"
        rows.append([f"{at:.4g}", f"{found.nats:.2f}", interval, f"{found.nats / math.log(2):.2f}"])
    return rows
