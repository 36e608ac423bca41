"""A classifier whose losses are weighed by a network that it trains beside itself (Heck et al., 2025)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from shoal.trainables.arrays import to_arrays, to_tensors
from shoal.trainables.stacked_loss import Called
from shoal.trainables.storm import Rescaler, meta_loss

DECAYS = 0.9, 0.999  # Adam's two averages keep these shares


@dataclass(frozen=True)
class Rescaling:
    """The numbers of STORM, and its features: passes of a batch and of the last one in, `(rows, wide)` out."""

    passes: int
    rate: float
    virtual: float
    wide: int
    features: Callable[[Mapping[str, Any], Mapping[str, Any] | None], Any]


class Weigher(nn.Module):
    """The rescaler, with the averages of its own optimiser as buffers: they are copied and saved with it."""

    def __init__(self, wide: int, classes: int):
        super().__init__()
        self.rescaler = Rescaler(wide, classes)
        for number, weight in enumerate(self.rescaler.parameters()):
            for order in ("first", "second"):
                self.register_buffer(f"{order}_{number}", torch.zeros_like(weight))
        self.register_buffer("steps", torch.zeros(()))

    def descend(self, slopes: Any, rate: float) -> None:
        """Take a step of Adam (Kingma and Ba, 2015)."""
        with torch.no_grad():
            steps = self.get_buffer("steps").add_(1.0).item()
            for number, (weight, slope) in enumerate(zip(self.rescaler.parameters(), slopes, strict=True)):
                first, second = (self.get_buffer(f"{order}_{number}") for order in ("first", "second"))
                first.lerp_(slope, 1 - DECAYS[0])
                second.lerp_(slope.square(), 1 - DECAYS[1])
                size = (second / (1 - DECAYS[1] ** steps)).sqrt() + 1e-8
                weight.sub_(rate * first / (1 - DECAYS[0] ** steps) / size)


class Learnt:
    """The weights that a member learns for its rows; it remembers the last batch, on which they are judged."""

    def __init__(self, member: Any, given: Rescaling):
        self.member, self.given = member, given
        self.last: dict[str, Any] = {}  # rows, and what their passes gave

    def weights(self, rows: Any) -> Tensor:
        """Learn from a batch; return the weight of each of its rows, in (0, 1), without gradients."""
        member, weigher = self.member, self.member.module.weigher
        named = {name: weight for name, weight in member.module.named_parameters() if weight.requires_grad}
        model = {f"module.{name}": each for name, each in named.items() if not name.startswith("weigher.")}
        called, label = Called(member, "loss"), member.roles(rows)["label"]
        seen = self.passes(model, rows)
        features = self.features(seen, self.last.get("passes"))
        if self.last:
            second = to_tensors(self.last["rows"], member.device)

            def weigh_second(moved: Mapping[str, Tensor]) -> Tensor:
                again = self.features(self.passes(moved, second), seen)
                found: Tensor = weigher.rescaler(again, member.roles(second)["label"])
                return found

            outer = meta_loss(
                lambda weights, batch: functional_call(called, dict(weights), (batch, member.numbers)),
                model,
                rows,
                weigher.rescaler(features, label),
                second,
                weigh_second,
                self.given.virtual / len(label),
            )
            slopes = torch.autograd.grad(outer / len(label), list(weigher.rescaler.parameters()))
            weigher.descend(slopes, self.given.rate)
        self.last = {"rows": to_arrays(rows), "passes": seen}
        with torch.no_grad():
            return weigher.rescaler(features, label)

    def passes(self, model: Mapping[str, Tensor], rows: Any) -> dict[str, Any]:
        """Return losses and largest probabilities of passes with dropout, `(passes, rows)`, and the labels."""
        member = self.member
        label = member.roles(rows)["label"]
        found = []
        with torch.no_grad():
            own = {name.removeprefix("module."): value for name, value in model.items()}
            for _ in range(self.given.passes):
                out = functional_call(member.module, own, (member.inputs(rows), member.numbers, True))
                found.append(out["logits"].double().log_softmax(dim=-1))
        logs = torch.stack(found)
        told = {
            "losses": -logs.gather(-1, label.expand(len(logs), -1)[..., None])[..., 0],
            "probabilities": logs.exp().amax(dim=-1),
            "labels": label,
            "agrees": logs.exp().mean(dim=0).argmax(dim=-1) == label,
        }
        return {name: value.cpu().numpy() for name, value in told.items()}

    def features(self, now: Mapping[str, Any], before: Mapping[str, Any] | None) -> Tensor:
        return torch.from_numpy(np.asarray(self.given.features(now, before))).float().to(self.member.device)
