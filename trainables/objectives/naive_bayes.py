"""A head that is counted and not trained: naive Bayes with one variance a number (Zheng et al., 2023).

Counts, means and sums of squares of the classes are merged batch by batch, so the order of rows does not
matter. The head that they give is linear: weights mean / variance, and a bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.trainables.objectives.interface import NamedLoss, Sizes, require

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State
    from shoal.trainables.searched_numbers import FloatOrTensor

LEAST_PRIOR = 1e-6  # share of a class that no row has had yet


@dataclass(frozen=True)
class NaiveBayes(NamedLoss):
    """Cross-entropy of a naive Bayes head on what the network makes of a row (Zheng et al., 2023).

    Only the network below the head has a gradient; with frozen features nothing is trained, and one epoch is
    all.
    """

    needs = frozenset({"logits", "features"})
    fields = frozenset({"label"})
    searched = ("floor", "forget")
    stateful = True

    floor: float = 1e-3  # added to each number's variance within classes
    forget: float = 0.0  # share of what is counted that a step takes away; 0 for frozen features

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.floor > 0, "floor must be above 0", self.floor)
        require(0 <= self.forget < 1, "forget must be at least 0 and below 1", self.forget)

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        import torch

        shape = (sizes.classes, max(sizes.features, 1))
        zeros = {name: torch.zeros(shape) for name in ("mean", "squares", "slopes")}
        return zeros | {"count": torch.zeros(shape[0]), "offsets": torch.zeros(shape[0])}

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        from shoal.trainables.searched_numbers import cross_entropy

        signals = sums_by_class(out["features"].detach(), batch["label"], len(state["count"]))
        losses = cross_entropy(self.predict(out, state), batch["label"], numbers.get("label_smoothing", 0.0))
        # the trained head has no part in this, but an optimiser needs a gradient, if only of 0
        return losses + 0.0 * out["logits"].sum(dim=-1), signals

    def predict(self, out: Mapping[str, Tensor], state: State) -> Tensor:
        return out["features"] @ state["slopes"].T + state["offsets"]

    def after(self, state: State, signals: Signals, numbers: Numbers) -> State:
        kept = {name: (1 - numbers["forget"]) * state[name] for name in ("count", "squares")}
        merged = merged_sums(kept | {"mean": state["mean"]}, signals)
        slopes, offsets = head_of(merged, numbers["floor"])
        return {**merged, "slopes": slopes, "offsets": offsets}


def sums_by_class(features: Tensor, label: Tensor, classes: int) -> dict[str, Tensor]:
    """Return counts `(classes,)`, means and sums of squares around them `(classes, features)`."""
    from torch.nn.functional import one_hot

    member = one_hot(label, classes).to(features.dtype)  # (rows, classes)
    count = member.sum(dim=0)
    mean = member.T @ features / count[:, None].clamp(min=1.0)
    return {"count": count, "mean": mean, "squares": member.T @ (features - member @ mean).square()}


def merged_sums(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sums of all rows from those of two parts (Chan et al., 1983)."""
    count = one["count"] + other["count"]
    share = (other["count"] / count.clamp(min=1e-12))[:, None]
    apart = other["mean"] - one["mean"]
    return {
        "count": count,
        "mean": one["mean"] + share * apart,
        "squares": one["squares"] + other["squares"] + one["count"][:, None] * share * apart.square(),
    }


def head_of(sums: Mapping[str, Tensor], floor: FloatOrTensor) -> tuple[Tensor, Tensor]:
    """Return weights `(classes, features)` and biases `(classes,)` of the head that the sums give."""
    rows = sums["count"].sum().clamp(min=1e-12)
    variance = sums["squares"].sum(dim=0) / rows + floor
    slopes = sums["mean"] / variance
    prior = (sums["count"] / rows).clamp(min=LEAST_PRIOR)
    return slopes, prior.log() - 0.5 * (sums["mean"] * slopes).sum(dim=-1)
