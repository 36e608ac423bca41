"""Contrastive losses over the rows of a batch, coupled or decoupled.

Coupled: a positive against itself and the negatives (van den Oord et al., 2018). Decoupled: the positive is
left out of the denominator, so easy positives do not starve the gradient of small batches (Yeh et al., 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class Contrastive(NamedLoss):
    """Each row finds its positive, another view of it, among the rows of a batch, by cosines."""

    needs = frozenset({"embedding", "view"})
    searched = ("temperature", "spread", "gamma")
    across_rows = True

    temperature: float = 0.1  # cosines are divided by it; small: only the hardest negatives count
    form: Literal["coupled", "decoupled"] = "coupled"  # whether the positive stands in the denominator too
    blocks: Literal["views", "all"] = (
        "views"  # negatives are the other rows' other views, or both of their views
    )
    # decoupled: width by which close positives weigh less (Yeh et al., 2022); 0: all weigh the same
    spread: float = 0.0
    gamma: float = (
        0.0  # coupled: power of 1 - p by which a positive of probability p counts less (Zhao et al., 2025)
    )
    scaled: bool = False  # the loss is multiplied by the temperature, which then does not change the step size

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature must be above 0", self.temperature)
        require(self.spread >= 0, "spread must be at least 0", self.spread)
        require(self.gamma >= 0, "gamma must be at least 0", self.gamma)
        require(not self.spread or self.form == "decoupled", "spread must be 0 with form: coupled", self.spread)
        require(not self.gamma or self.form == "coupled", "gamma must be 0 with form: decoupled", self.gamma)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        from shoal.trainables.objectives.arithmetic import own, unit

        one, other = unit(out["embedding"]), unit(out["view"])
        allowed = ~(batch["same"] if "same" in batch else own(one))
        both = [self.direction(a, b, allowed, numbers) for a, b in ((one, other), (other, one))]
        return (both[0] + both[1]) / 2, {}

    def direction(self, anchors: Tensor, others: Tensor, allowed: Tensor, numbers: Numbers) -> Tensor:
        """Return the loss of each anchor, whose positive is the same row of `others`: `(rows,)`."""
        import torch

        cosines, positive = anchors @ others.T, (anchors * others).sum(dim=-1)
        if self.blocks == "all":
            cosines = torch.cat([cosines, anchors @ anchors.T], dim=-1)
            allowed = torch.cat([allowed, allowed], dim=-1)
        return self.of(positive, cosines, allowed, numbers)

    def of(self, positive: Tensor, negatives: Tensor, allowed: Tensor, numbers: Numbers) -> Tensor:
        """Return the loss of each row: positives `(rows,)`, negatives and their mask `(rows, candidates)`."""
        import torch

        from shoal.trainables.objectives.arithmetic import log_sum, powered
        from shoal.trainables.searched_numbers import used

        heat = numbers["temperature"]
        top, (below, there) = positive / heat, log_sum(negatives / heat, allowed)
        if self.form == "coupled":
            whole = torch.where(there, torch.logaddexp(top, below), top)
            loss = whole - top
            if used(numbers["gamma"]):
                loss = powered(1 - (-loss).exp(), numbers["gamma"]).detach() * loss
        else:
            loss = below - self.ease(positive, numbers["spread"]) * top
            loss = torch.where(there, loss, torch.zeros_like(loss))
        return heat * loss if self.scaled else loss

    def ease(self, positive: Tensor, spread: object) -> Tensor:
        """Return the weight of each positive, of mean 1 or more; it has no gradient and is at least 0."""
        import torch

        if not isinstance(spread, torch.Tensor):
            if not spread:
                return torch.ones_like(positive)
            spread = torch.tensor(float(spread), device=positive.device)  # type: ignore[arg-type]
        near = (positive.detach() / spread.clamp(min=1e-6)).softmax(dim=0)
        weight = (2 - len(positive) * near).clamp(min=0.0)
        return torch.where(spread > 0, weight, torch.ones_like(weight))
