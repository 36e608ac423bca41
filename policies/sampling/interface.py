"""The interface of sampling policies: a rule makes an epoch's plan, and the plan decides row by row."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
# One value a row. "loss": the last one, NaN for a row that has not been seen. "age": how many epochs in a row
# have dropped it. "score": what a model that was trained before says of it, NaN where it says nothing.
Columns = Mapping[str, NDArray[Any]]


class Spec(NamedTuple):
    """The columns that a rule needs and the decisions that it makes, for checks before anything runs."""

    cadence: Literal["once", "epoch", "step"]
    needs: frozenset[str]  # columns
    emits: frozenset[str]  # some of "keep", "weight", "order"
    coupling: Literal["none", "summary", "global"]  # how much a decision knows of the other rows
    reduction: Literal["mean_count", "weighted_sum", "sum"]  # how weighted losses become one number


class Context(NamedTuple):
    """Where training stands when an epoch is planned."""

    epoch: int  # from 0
    epochs: float  # epochs of the whole training: an estimate, since an epoch with fewer rows is shorter
    seed: int
    rows: int  # rows of the pool

    def until(self, share: float) -> bool:
        """Say whether this epoch ends within the first `share` of the training."""
        return self.epoch + 1 <= share * self.epochs


class Decision(NamedTuple):
    """The decisions about some rows; each array is `(rows,)`."""

    copies: NDArray[np.int32]  # 0 drops the row
    weight: NDArray[np.float32]  # factor of the row's loss
    rank: NDArray[np.float64] | None = None  # rows are read in ascending rank; NaN keeps a row in its place


class Plan(ABC):
    """An epoch's decisions. A plan is small when pickled, and pure: equal ids and columns decide equally."""

    @abstractmethod
    def decide(self, ids: Ids, columns: Columns) -> Decision:
        """Decide about some rows, in any blocks and order, by the columns as they were at planning."""

    def weigh(self, signals: Mapping[str, Any]) -> Any:
        """Return what each loss of a batch counts in the sum that is minimised.

        `signals` has arrays, or tensors, over the whole global batch: "loss" and the decided "weight"; and
        "step", one number: how many steps were trained before. By default weighted losses are divided by their
        count, never by the sum of weights: that would make the gradient of a rescaling rule biased again.
        """
        return signals["weight"] / signals["weight"].shape[0]


class Rule(Protocol):
    """A sampling policy's settings."""

    @property
    def spec(self) -> Spec: ...

    def plan(self, ids: Ids, columns: Columns, context: Context) -> Plan:
        """Plan an epoch from all rows of the pool and what is known of them."""


def decision(keep: NDArray[np.bool_], weight: NDArray[np.float64] | None = None) -> Decision:
    """Return the decision that keeps these rows once, with their weights if there are any, else with 1."""
    weights = np.ones(len(keep), np.float32) if weight is None else weight.astype(np.float32)
    return Decision(keep.astype(np.int32), weights)


def needs_losses(rule: Rule) -> bool:
    """Say whether an epoch's plan looks at losses; weights within a step need no past ones."""
    return "loss" in rule.spec.needs and rule.spec.cadence == "epoch"
