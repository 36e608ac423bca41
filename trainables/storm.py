"""STORM's gradients: a rescaler learns the losses' weights from noisy data alone (Heck et al., 2025).

A step has three parts. The weights `w = rescaler(features)` of a batch move the model virtually by plain SGD;
on a second batch, drawn independently of the first, the rescaled loss of the moved model says how the rescaler
should change; then the model itself steps by its own optimiser. Only plain SGD gives the rescaler a gradient
that knows the losses' size: Adam's first step is nearly a sign.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

RowLossFunction = Callable[[Mapping[str, Tensor], Any], Tensor]  # (weights of the model, batch) -> (rows,)


class Rescaler(nn.Module):
    """Features `(rows, features)` and labels `(rows,)` in, weights in (0, 1) out, by each class's own layers.

    The last norm keeps a batch's weights spread out, so that they cannot all fall to 0.
    """

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.each = nn.ModuleList(
            nn.Sequential(
                nn.Linear(features, features),
                nn.BatchNorm1d(features, affine=False),
                nn.ReLU(),
                nn.Linear(features, 2),
                nn.BatchNorm1d(2, affine=False),
            )
            for _ in range(classes)
        )

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        # every class sees the whole batch, so that its batch norms have enough rows
        weights = torch.stack([layers(features).softmax(dim=-1)[:, 0] for layers in self.each])
        return weights.gather(0, labels[None])[0]


def meta_loss(
    losses: RowLossFunction,
    model: Mapping[str, Tensor],
    batch: Any,
    weights: Tensor,
    second: Any,
    weigh_second: Callable[[Mapping[str, Tensor]], Tensor],
    rate: float,
) -> Tensor:
    """Return the second batch's rescaled loss after a virtual step of SGD on the first one.

    `weigh_second` gives the second batch's weights from the moved model. Gradients flow into whatever the
    weights come from, through the step and directly. The losses are summed, not averaged.
    """
    inner = (weights * losses(model, batch)).sum()
    gradients = torch.autograd.grad(inner, list(model.values()), create_graph=True)
    moved = {name: value - rate * slope for (name, value), slope in zip(model.items(), gradients, strict=True)}
    return (weigh_second(moved) * losses(moved, second)).sum()


def row_loss_function(module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> RowLossFunction:
    """Return the function from a module's weights and a batch `(inputs, labels)` to the losses `(rows,)`."""

    def losses(weights: Mapping[str, Tensor], batch: Any) -> Tensor:
        inputs, labels = batch
        return loss(functional_call(module, dict(weights), (inputs,)), labels)

    return losses
