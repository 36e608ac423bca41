"""Hard negatives of a query's own beside those of its batch, mixed ones, and scores of a teacher (KaLM-V2).

Zhao et al., 2025: the softmax of a query is over its positive, the batch's positives, and the hard negatives of
all queries. Mixing two of a query's own hard negatives makes a harder one, since the mixture is scaled to
length 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State


@dataclass(frozen=True)
class HardNegatives(NamedLoss):
    """Each query finds its positive among the batch's positives and hard negatives (Zhao et al., 2025)."""

    needs = frozenset({"embedding", "view", "negatives", "draws"})
    searched = ("temperature", "gamma", "mixed")
    across_rows = True

    temperature: float = 0.05  # cosines are divided by it
    gamma: float = 0.0  # power of 1 - p by which a query of probability p counts less; it has no gradient
    mixed: float = 0.0  # how often each mixture of two hard negatives stands in the softmax

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature must be above 0", self.temperature)
        require(self.gamma >= 0, "gamma must be at least 0", self.gamma)
        require(self.mixed >= 0, "mixed must be at least 0", self.mixed)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the loss of each query.

        `negatives` are `(rows, most, width)`, `there` is 1 for those that exist, and `draws`, both
        `(rows, most)`, are shares in (0, 1) by which neighbours are mixed.
        """
        import torch

        from shoal.trainables.objectives.arithmetic import log_sum, own, powered, unit
        from shoal.trainables.searched_numbers import used

        query, positive, hard = (unit(out[name]) for name in ("embedding", "view", "negatives"))
        there, heat = batch["there"] > 0, numbers["temperature"]
        others = ~(batch["same"] if "same" in batch else own(query))
        allowed = torch.cat([others, there.flatten()[None].expand(len(query), -1)], dim=-1)
        cosines = query @ torch.cat([positive, hard.flatten(0, 1)]).T
        top = (query * positive).sum(dim=-1) / heat
        below, any_there = log_sum(cosines / heat, allowed)
        whole = torch.where(any_there, torch.logaddexp(top, below), top)
        if used(numbers["mixed"]):
            both = there & there.roll(-1, dims=1)
            found = (query[:, None] * mixtures(hard, out["draws"])).sum(dim=-1)
            extra, some = log_sum(found / heat, both)
            often = torch.as_tensor(numbers["mixed"]).to(extra)
            more = torch.logaddexp(whole, extra + often.clamp(min=1e-12).log())
            whole = torch.where(some & (often > 0), more, whole)
        loss = whole - top
        if used(numbers["gamma"]):
            loss = powered(1 - (-loss).exp(), numbers["gamma"]).detach() * loss
        return loss, {}


def mixtures(hard: Tensor, shares: Tensor) -> Tensor:
    """Return each hard negative mixed with the next of its query, of length 1: `(rows, most, width)`."""
    from shoal.trainables.objectives.arithmetic import unit

    return unit(shares[..., None] * hard + (1 - shares[..., None]) * hard.roll(-1, dims=1))


@dataclass(frozen=True)
class TeacherScores(NamedLoss):
    """The divergence of a query's scores from a teacher's over the same candidates (Hinton et al., 2015)."""

    needs = frozenset({"embedding", "view", "negatives"})
    fields = frozenset({"teacher"})
    searched = ("temperature",)

    temperature: float = 0.05  # both scores are divided by it; the loss is multiplied by its square

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature must be above 0", self.temperature)

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return each query's loss; `teacher` scores its positive, then its negatives: `(rows, 1 + most)`."""
        import torch

        from shoal.trainables.objectives.arithmetic import unit

        query, heat = unit(out["embedding"]), numbers["temperature"]
        candidates = torch.cat([unit(out["view"])[:, None], unit(out["negatives"])], dim=1)
        there = torch.cat([torch.ones_like(batch["there"][:, :1]), batch["there"]], dim=1) > 0
        scores = (query[:, None] * candidates).sum(dim=-1)
        own, teacher = (
            (each / heat).masked_fill(~there, -1e9).log_softmax(dim=-1)
            for each in (scores, batch["teacher"].to(scores.dtype))
        )
        apart = torch.where(there, teacher.exp() * (teacher - own), torch.zeros_like(own))
        return heat * heat * apart.sum(dim=-1), {}
