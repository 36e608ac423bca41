"""Weights from the losses of the batch itself, anew at every step (Sow et al., 2025).

The arithmetic takes numpy arrays and torch tensors alike, also under `vmap`, so the training step runs this
very code. Where a batch is spread over ranks, each needs three numbers of the others: the least and the
largest loss, and the sum of `raised` weights. With averaged gradients the loss is then `ranks * sum(w * loss)`.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from shoal.policies.sampling.interface import Columns, Context, Decision, Ids, Plan, Spec, decision


@dataclass(frozen=True)
class Dynamic(Plan):
    """Weigh a loss by `exp(f(h) / temperature)`, where h says where it lies between least and largest.

    h is -reach at the batch's least loss and reach at its largest. The weights sum to 1 and differ by a
    factor of at most `exp(reach / temperature)`, for Quadratic `exp(1 / temperature)`; one outlier flattens
    the others. The first `burn_in` steps take the plain mean: early losses say little of a row.
    """

    spec: ClassVar[Spec] = Spec("step", frozenset({"loss"}), frozenset({"weight"}), "summary", "weighted_sum")
    temperature: float = 1.0  # the smaller, the more weights differ
    reach: float = 1.0  # h goes from -reach at the least loss to reach at the largest
    burn_in: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0.01:
            raise ValueError(f"temperature must be at least 0.01, but got {self.temperature}.")
        if not self.reach > 0:
            raise ValueError(f"reach must be above 0, but got {self.reach}.")
        if not self.burn_in >= 0:
            raise ValueError(f"burn_in must be at least 0, but got {self.burn_in}.")

    @abstractmethod
    def height(self, h: Any) -> Any:
        """Return f(h), at most `top`."""

    @property
    def top(self) -> float:
        return self.reach

    def plan(self, ids: Ids, columns: Columns, context: Context) -> Plan:
        return self

    def decide(self, ids: Ids, columns: Columns) -> Decision:
        return decision(np.ones(len(ids), bool))

    def weigh(self, signals: Mapping[str, Any]) -> Any:
        losses = signals["loss"]
        raised = self.raised(losses, losses.min(), losses.max())
        found = raised / raised.sum()
        if not self.burn_in:
            return found
        begun = (signals["step"] >= self.burn_in) * 1.0  # no `if`: each member of a stack has its own step
        return begun * found + (1 - begun) / losses.shape[0]

    def raised(self, losses: Any, least: Any, largest: Any) -> Any:
        """Return weights that do not sum to 1 yet, from the least and largest loss of all ranks."""
        # centred before it is divided: a difference of large numbers would lose the digits
        h = 2 * self.reach * (losses - (least + largest) / 2) / (largest - least).clip(min=1e-6)
        return math.e ** ((self.height(h) - self.top) / self.temperature)


@dataclass(frozen=True)
class LinUpper(Dynamic):
    """Damp the rows below the middle; all above it count alike."""

    def height(self, h: Any) -> Any:
        return (h + self.reach).clip(max=self.reach)


@dataclass(frozen=True)
class Quadratic(Dynamic):
    """Favour the middle."""

    def height(self, h: Any) -> Any:
        return 1 - h**2 / self.reach**2

    @property
    def top(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Extremes(Dynamic):
    """Favour both ends."""

    def height(self, h: Any) -> Any:
        return abs(h)
