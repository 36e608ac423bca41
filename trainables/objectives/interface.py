"""What an objective is: a pure loss with numbers that may be searched, and a small plain state.

Torch is imported by the functions that compute, since a run's file is checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.searched_numbers import FloatOrTensor

    Numbers = Mapping[str, FloatOrTensor]
    State = Mapping[str, Tensor]
    Signals = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """What an objective may know of its members before a run; 0 where it is not known."""

    classes: int = 0
    rows: int = 0  # a batch has so many
    groups: int = 0  # values of the column `group`
    features: int = 0  # numbers of what the network makes of a row before the heads


@dataclass(frozen=True)
class NamedLoss:
    """A loss: its fields are words, which are constants in a run, and numbers; those in `searched` may evolve.

    `loss` and `after` are pure, work under vmap where a number may be a scalar tensor, and draw nothing.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})  # the module must return these
    fields: ClassVar[frozenset[str]] = frozenset()  # columns of the batch
    searched: ClassVar[tuple[str, ...]] = ()  # numbers that may be hyperparameters
    across_rows: ClassVar[bool] = False  # whether a row's loss depends on the batch's other rows
    stateful: ClassVar[bool] = False  # whether `start` gives it a state
    alone: ClassVar[bool] = False  # whether a step takes several passes: its members never train in a stack

    weight: float = 1.0  # factor of this loss in a list of objectives
    # in a list: this loss is brought to the running size of the first one (Chen et al., 2020)
    balanced: bool = False

    def __post_init__(self) -> None:
        require(self.weight >= 0, "weight must be at least 0", self.weight)

    @property
    def by_row(self) -> bool:
        """Whether `loss` returns a loss for each row, and not one scalar."""
        return True

    def misfit(self, sizes: Sizes) -> str:
        """Return why it cannot train with these sizes, or nothing."""
        # two views of a row are a positive pair, whose negatives are other rows
        alone = "view" in self.needs and sizes.rows == 1
        return f"needs batches of at least 2 rows to have negatives, got {sizes.rows}" if alone else ""

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        """Return the first state: tensors by name, which become buffers of the module."""
        return {}

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the losses, `(rows,)` or one scalar, and what `after` takes: detached tensors by name.

        `out` is what the module returns, `batch` the columns, `numbers` the values of `searched`, by name.
        """
        raise NotImplementedError

    def moved(
        self,
        x: Tensor,
        forward: Callable[[Tensor], Mapping[str, Tensor]],
        batch: Mapping[str, Tensor],
        numbers: Numbers,
    ) -> Tensor:
        """Return where rows, as the network sees them, are trained, for an objective that needs `moved`."""
        return x

    def predict(self, out: Mapping[str, Tensor], state: State) -> Tensor:
        """Return a value for each class, the largest for the predicted one: `(rows, classes)`.

        Members are judged by it. It has no `numbers`: a score must not depend on what is searched.
        """
        return out["logits"]

    def after(self, state: State, signals: Signals, numbers: Numbers) -> State:
        """Return the state after a step; called once a step, without gradients."""
        return state


def require(holds: bool, what: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{what}, but got {got}.")
