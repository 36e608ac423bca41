"""What the rest of the system knows of a member, whatever it trains."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

State = dict[str, Any]
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

    def state(self) -> State: ...

    def load(self, state: State) -> None: ...


class Comparable(Batches, Protocol):
    """Batches that can say when others are the same: a stack then draws once for all its members."""

    def alike(self, other: Batches) -> bool:
        """Say whether the other's batches are the same ones from here on; it then loads this one's state."""


class Sampled(Batches, Protocol):
    """Batches whose rows carry weights, and which are told the losses of the rows that were trained on.

    `next` returns the batch as "rows" beside its "weights", float32 `(rows,)`.
    """

    def weigh(self, losses: Any, weights: Any) -> Any:
        """Return what each row's loss counts in the sum that is minimised, from tensors `(rows,)`.

        Called within a training step, in a stack under `vmap`: so it computes, and does not branch on a value.
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

    trained: int  # optimiser steps behind these weights

    def train(self, steps: int) -> float:
        """Train on and return the mean training loss; NaN if it diverged."""

    def evaluate(self, split: str = "validation") -> tuple[float, dict[str, float]]:
        """Return the score (higher is better) and the loss per group."""

    def state(self) -> State: ...

    def load(self, state: State, hyperparameters: dict[str, Any]) -> None: ...
