"""A head for each source of rows beside a common one (Zhang et al., 2022: DRM)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, Sizes, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State

LEAST_ENTROPY = 1e-6  # nats; a head of no doubt at all would weigh infinitely


@dataclass(frozen=True)
class DomainHeads(NamedLoss):
    """Cross-entropy of the head of the row's own `group` and of a common head (Zhang et al., 2022).

    A row of any group, also of an unseen one, is predicted by all heads, of which the surer ones weigh more.
    """

    needs = frozenset({"logits", "heads"})
    fields = frozenset({"label", "group"})
    searched = ("common",)

    common: float = 0.5  # share of the common head's loss
    entropy_power: float = 1.0  # heads weigh 1 / entropy to this power in a prediction

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.common <= 1, "common must be at least 0 and at most 1", self.common)
        require(self.entropy_power >= 0, "entropy_power must be at least 0", self.entropy_power)

    def misfit(self, sizes: Sizes) -> str:
        return "needs a column `group` of at least 2 values" if sizes.groups == 1 else ""

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        from shoal.trainables.searched_numbers import cross_entropy

        smoothing, label = numbers.get("label_smoothing", 0.0), batch["label"]
        classes = out["heads"].shape[-1]
        place = batch["group"][:, None, None].expand(-1, 1, classes)
        special = cross_entropy(out["heads"].gather(1, place)[:, 0], label, smoothing)
        shared = cross_entropy(out["logits"], label, smoothing)
        return (1 - numbers["common"]) * special + numbers["common"] * shared, {}

    def predict(self, out: Mapping[str, Tensor], state: State) -> Tensor:
        """Return the logarithm of the mixture of all heads' probabilities."""
        import torch

        heads = torch.cat([out["heads"], out["logits"][:, None]], dim=1)
        return self.mixture(heads.softmax(dim=-1)).clamp(min=1e-30).log()

    def mixture(self, chances: Tensor) -> Tensor:
        """Return the mixture `(rows, classes)` of the heads' probabilities `(rows, heads, classes)`."""
        entropy = -(chances * chances.clamp(min=1e-30).log()).sum(dim=-1)
        logs = -self.entropy_power * entropy.clamp(min=LEAST_ENTROPY).log()
        return (logs.softmax(dim=-1)[..., None] * chances).sum(dim=1)
