"""Labels that lie near or far from one another (Roberts et al., 2023: Loki).

Loki predicts the label with the least expected squared distance. Here the same costs are also the logits of a
cross-entropy, with their true gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.trainables.objectives.interface import NamedLoss, Sizes, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State
    from shoal.trainables.searched_numbers import FloatOrTensor


@dataclass(frozen=True)
class Loki(NamedLoss):
    """Cross-entropy over minus each label's expected squared distance to the guess (Roberts et al., 2023)."""

    fields = frozenset({"label"})
    searched = ("temperature", "power")

    temperature: float = 0.1  # expected costs are divided by it; they are at most some 1
    power: float = 2.0  # power of the distances; 2 gives a Frechet mean
    distances: tuple[Any, ...] = ()  # a row of distances for each class; by default classes lie on a line

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature must be above 0", self.temperature)
        require(self.power > 0, "power must be above 0", self.power)
        for place, row in enumerate(self.distances):
            held = isinstance(row, tuple | list) and len(row) == len(self.distances)
            held = held and not row[place] and all(each >= 0 for each in row)
            require(
                held, "distances must be a square of numbers of at least 0, with 0 from a class to itself", row
            )

    def misfit(self, sizes: Sizes) -> str:
        if not self.distances or len(self.distances) == sizes.classes or not sizes.classes:
            return ""
        return f"distances must have a row for each of {sizes.classes} classes, got {len(self.distances)}"

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        from torch.nn.functional import cross_entropy

        costs = self.costs(out["logits"].softmax(dim=-1), numbers["power"])
        return cross_entropy(-costs / numbers["temperature"], batch["label"], reduction="none"), {}

    def predict(self, out: Mapping[str, Tensor], state: State) -> Tensor:
        return -self.costs(out["logits"].softmax(dim=-1), self.power)

    def costs(self, chances: Tensor, power: FloatOrTensor) -> Tensor:
        """Return each label's expected cost, of probabilities `(rows, classes)`; the largest distance is 1."""
        import torch

        classes = chances.shape[-1]
        places = torch.arange(classes, dtype=chances.dtype, device=chances.device)
        apart = (places[:, None] - places).abs()
        if self.distances:
            apart = torch.tensor(self.distances, dtype=chances.dtype, device=chances.device)
        apart = apart / apart.max().clamp(min=1e-12)
        # 0 to a searched power has the slope NaN
        costs: Tensor = chances @ torch.where(apart > 0, apart.clamp(min=1e-12) ** power, 0.0)
        return costs
