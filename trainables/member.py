"""The interfaces of a member and of its batches, whatever the member trains."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

# plain values, arrays and tensors: `state` returns them, `load` takes them
SavedState = dict[str, Any]
Method = TypeVar("Method", bound=Callable[..., Any])


def copies(method: Method) -> Method:
    """Mark a `state` that hands out copies, or a `load` that copies out of what it is given.

    The mark is the method's own: a class that overrides it is copied from and for, unless it says so again.
    """
    method.copies = True  # type: ignore[attr-defined]
    return method


class Batches(Protocol):
    """The rows a member trains on. Its cursor is part of the member's state and moves with it."""

    def next(self) -> Any:
        """Return the next batch: an array, or a nest of arrays, whose first axis is the rows."""

    def state(self) -> SavedState: ...

    def load(self, state: SavedState) -> None: ...


class Comparable(Batches, Protocol):
    """Batches that can compare themselves with others: if all are alike, a stack draws once for all members."""

    def alike(self, other: Batches) -> bool:
        """Say whether the other draws the same batches from now on; if so, it later loads this one's state."""


class Sampled(Batches, Protocol):
    """Batches whose rows have weights. They receive the losses of the rows that were trained on.

    `next` returns the batch as "rows" beside its "weights", float32 `(rows,)`.
    """

    def weigh(self, losses: Any, weights: Any) -> Any:
        """Return each row's weight in the sum that is minimised; all are tensors `(rows,)`.

        It is called within a training step, in a stack under `vmap`, so it must not branch on a value.
        """

    def observe(self, losses: NDArray[np.floating]) -> None:
        """Take the losses `(steps, rows)` of all batches since the last call, in their order."""


class Member(Protocol):
    """One model in training: weights, optimiser state, hyperparameters, data cursor, random state.

    `state` returns plain values, numpy arrays and tensors in nests, the weights by name under "weights". It may
    hand out what the member goes on with, and `load` may keep what it is given: `handover` copies between them,
    unless they are marked as methods that `copies`.
    After `load(other.state(), hyperparameters)` a member goes on exactly as the other would have done
    with those hyperparameters.
    """

    trained: int  # optimiser steps that these weights have had

    def train(self, steps: int) -> float:
        """Train on and return the mean training loss; NaN if it diverged."""

    def evaluate(self, split: str = "validation") -> tuple[float, dict[str, float]]:
        """Return the score (higher is better) and the loss per group."""

    def state(self) -> SavedState: ...

    def load(self, state: SavedState, hyperparameters: dict[str, Any]) -> None: ...
