"""Unsure unlabelled rows train on fewer classes, of which one is sure (Yang et al., 2023: ShrinkMatch).

Rows with `unlabelled` have no label. The rows as they are give the targets, their augmented views learn them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, Sizes, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State

REMEMBERED = 32  # batches whose mean predictions align the next ones


@dataclass(frozen=True)
class ShrunkClasses(NamedLoss):
    """Cross-entropy of labels, of sure guesses, and of unsure ones on fewer classes (Yang et al., 2023)."""

    needs = frozenset({"logits", "plain", "auxiliary"})
    fields = frozenset({"label", "unlabelled"})
    searched = ("threshold", "unlabelled", "shrunk")
    across_rows = True
    stateful = True

    threshold: float = 0.95  # a prediction of this probability is sure
    unlabelled: float = 1.0  # weight of the rows whose prediction is sure
    shrunk: float = 1.0  # weight of the others, which also grows with the share of sure ones
    rate: float = 0.001  # share of a new batch in the moving average of that share

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.threshold < 1, "threshold must be above 0 and below 1", self.threshold)
        require(self.unlabelled >= 0, "unlabelled must be at least 0", self.unlabelled)
        require(self.shrunk >= 0, "shrunk must be at least 0", self.shrunk)
        require(0 < self.rate <= 1, "rate must be above 0 and at most 1", self.rate)

    def misfit(self, sizes: Sizes) -> str:
        few = 0 < sizes.classes < 3
        return f"needs at least 3 classes, of which some can be left out, got {sizes.classes}" if few else ""

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        import torch

        zero = torch.zeros(())
        return {"sure": zero, "seen": zero.clone(), "means": torch.zeros(REMEMBERED, sizes.classes)}

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        import torch
        from torch.nn.functional import cross_entropy

        unknown = batch["unlabelled"].to(out["logits"].dtype)
        guessed = out["plain"].detach().softmax(dim=-1)
        target = aligned(guessed, state["means"])
        best, top = target.max(dim=-1)
        sure = best >= numbers["threshold"]
        soft = -(target * out["logits"].log_softmax(dim=-1)).sum(dim=-1)
        kept, found = shrink(target, numbers["threshold"])
        fewer = out["auxiliary"].masked_fill(~kept, -1e9).log_softmax(dim=-1)
        unsure = -fewer.gather(-1, top[:, None])[:, 0] * best * (found & ~sure)
        # a label of an unlabelled row is any number: it is read as class 0, and not used
        label = torch.where(unknown > 0, torch.zeros_like(batch["label"]), batch["label"])
        known = cross_entropy(out["logits"], label, reduction="none")
        guess = numbers["unlabelled"] * sure * soft + numbers["shrunk"] * state["sure"] * unsure
        rows = unknown.sum().clamp(min=1.0)
        share = (unknown * sure).sum() / rows
        signals = {
            "share": share,
            "mean": (unknown[:, None] * guessed).sum(dim=0) / rows,
            "there": unknown.any().to(share.dtype),
        }
        return torch.where(unknown > 0, guess, known), signals

    def after(self, state: State, signals: Signals, numbers: Numbers) -> State:
        import torch

        there, first = signals["there"] > 0, state["seen"] == 0
        moved = (1 - self.rate) * state["sure"] + self.rate * signals["share"]
        share = torch.where(first, signals["share"], moved)
        means = torch.cat([state["means"][1:], signals["mean"][None]])
        return {
            "sure": torch.where(there, share, state["sure"]),
            "seen": torch.where(there, torch.ones_like(state["seen"]), state["seen"]),
            "means": torch.where(there, means, state["means"]),
        }


def aligned(chances: Tensor, means: Tensor) -> Tensor:
    """Return probabilities `(rows, classes)` over the mean of the remembered ones, again of sum 1."""
    import torch

    mean = means.sum(dim=0)
    filled = torch.where(mean.sum() > 0, mean.clamp(min=1e-6), torch.ones_like(mean))
    found = chances / filled
    return found / found.sum(dim=-1, keepdim=True)


def shrink(chances: Tensor, threshold: object) -> tuple[Tensor, Tensor]:
    """Return which classes stay, `(rows, classes)`, and whether the likeliest is sure among them, `(rows,)`.

    The second to the c-th likeliest leave, for the smallest c at which p1 / (p1 + rest) reaches the threshold.
    """
    import torch

    ranked, order = chances.sort(dim=-1, descending=True)
    rest = (1 - ranked.cumsum(dim=-1)).clamp(min=0.0)
    # place c - 1 says what stays if ranks 2 to c leave; at least one other class stays
    ratio = ranked[..., :1] / (ranked[..., :1] + rest)[..., 1:-1].clamp(min=1e-12)
    reaches = ratio >= threshold  # type: ignore[operator]
    found, leaving = reaches.any(dim=-1), reaches.to(torch.int64).argmax(dim=-1) + 2
    ranks = torch.arange(chances.shape[-1], device=chances.device)
    stays = (ranks == 0) | (ranks >= leaving[..., None])
    # inverse of the sorting permutation: the rank of each class
    rank = order.argsort(dim=-1)
    return stays.gather(-1, rank), found
