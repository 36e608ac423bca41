"""How hard rows are, and training from easy to hard (Hase et al., 2024)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.sampling.interface import Columns, Context, Decision, Ids, Plan, Spec, decision

EASY, MEDIUM, HARD, UNKNOWN = "easy", "medium", "hard", "unknown"


def hardness(label_probabilities: NDArray[np.floating]) -> Vector:
    """Return 1 minus the mean probability of the right label, `(rows,)`, from `(rows, probes)`.

    NaN stands where a probe has no probability for a row; a row without any stays NaN. The probability is
    averaged, not its logarithm.
    """
    known = np.isfinite(label_probabilities)
    sums = np.where(known, label_probabilities, 0.0).sum(axis=1, dtype=np.float64)
    counts = known.sum(axis=1)
    return np.where(counts, 1 - sums / np.maximum(counts, 1), np.nan)


def levels(values: Vector, cuts: tuple[float, float] | None = None) -> NDArray[np.str_]:
    """Return easy, medium or hard for each row, by human cuts or else the 30 % and 70 % quantiles.

    A value at both cuts, as of constant values, is easy; NaN is unknown.
    """
    known = np.isfinite(values)
    if cuts is None:
        low, high = np.quantile(values[known], (0.3, 0.7)) if known.any() else (np.nan, np.nan)
    else:
        low, high = cuts
    return np.select([~known, values <= low, values >= high], [UNKNOWN, EASY, HARD], MEDIUM)


class Gap(NamedTuple):
    """How much of the gain from hard rows easy rows give."""

    share: float  # easy rows close this share of the gap between training on nothing and on hard rows
    low: float  # lower end of a 95 % bootstrap interval
    high: float  # its upper end


def recovered_gap(
    unsupervised: Vector, easy: Vector, hard: Vector, rng: np.random.Generator, least: float = 0.01
) -> Gap:
    """Return the supervision gap recovered, from the accuracies on hard rows in several repeats each.

    Raises ValueError if the gap itself is below `least` or not above 0, since a share of it would be noise, and
    for single repeats, between which nothing can vary.
    """
    if min(map(len, (unsupervised, easy, hard))) < 2:
        raise ValueError(
            f"an interval needs at least 2 repeats of each, but got {len(unsupervised)}, {len(easy)}, "
            f"{len(hard)}."
        )

    def share(none: float, by_easy: float, by_hard: float) -> float:
        return (by_easy - none) / (by_hard - none)

    means = [float(np.mean(values)) for values in (unsupervised, easy, hard)]
    if not means[2] - means[0] >= max(least, 1e-12):
        raise ValueError(
            f"training on hard rows must gain at least {least}, but gained {means[2] - means[0]:.4g}."
        )
    drawn = [rng.choice(values, (2000, len(values))).mean(axis=1) for values in (unsupervised, easy, hard)]
    wide = drawn[2] - drawn[0] > 0
    low, high = np.quantile((drawn[1] - drawn[0])[wide] / (drawn[2] - drawn[0])[wide], (0.025, 0.975))
    return Gap(share(*means), float(low), float(high))


@dataclass(frozen=True)
class EasyToHard(Plan):
    """Order each epoch's rows by a column, lowest first; rows where it is NaN stay where they come.

    By "score" a model that was trained before gives the order, which is the same in each epoch. By "loss" each
    epoch's order is made of the last losses; the first epoch has none, and keeps the stream's order.
    """

    # the column that rows are ordered by: scores of `sampling.scorer`, or the member's last losses
    by: Literal["score", "loss"] = "score"

    def __post_init__(self) -> None:
        if self.by not in ("score", "loss"):
            raise ValueError(f"by must be score or loss, but got {self.by}.")

    @property
    def spec(self) -> Spec:
        cadence: Literal["once", "epoch"] = "once" if self.by == "score" else "epoch"
        return Spec(cadence, frozenset({self.by}), frozenset({"order"}), "none", "mean_count")

    def plan(self, ids: Ids, columns: Columns, context: Context) -> Plan:
        return self

    def decide(self, ids: Ids, columns: Columns) -> Decision:
        all_rows = decision(np.ones(len(ids), bool))
        return all_rows._replace(rank=columns[self.by].astype(np.float64))
