"""Optimisers for many members at once: torch.optim's formulas, where each number is a vector over members.

Weights, gradients and slots are matrices `(members, parameters)`; the first `decayed` columns decay.
Everything is done in place, in the gradients too: for small networks a new matrix costs more than the
arithmetic. Slots have torch.optim's names, so that a member's own optimiser can go on with its row.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

Factors = Mapping[str, Tensor]
Numbers = Mapping[str, float]
EPSILON = 1e-8


class Optimiser(Protocol):
    slots: tuple[str, ...]
    counts: bool  # whether torch.optim keeps the number of steps beside the slots

    def factors(self, numbers: Factors) -> dict[str, Tensor]:
        """Return the factors that `update` needs, from float64 numbers of one shape.

        The numbers are "rate" (after the schedule), "age" (steps, this one included) and those of the recipe.
        In float32 only three digits of 1 - beta2 would be left.
        """

    def update(
        self, weights: Tensor, gradients: Tensor, slots: Mapping[str, Tensor], factors: Factors, decayed: int
    ) -> None:
        """Do a step; the factors are columns `(members, 1)`."""


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    slots: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    counts = True

    def factors(self, numbers: Factors) -> dict[str, Tensor]:
        rate, age = numbers["rate"], numbers["age"]
        spread = (1 - numbers["beta2"] ** age).sqrt()  # corrects the bias of the root mean square
        return {
            "keep": 1 - rate * numbers["weight_decay"],
            "new_mean": 1 - numbers["beta1"],
            "beta2": numbers["beta2"],
            "new_root": (1 - numbers["beta2"]).sqrt(),
            "epsilon": EPSILON * spread,
            "step": -rate * spread / (1 - numbers["beta1"] ** age),
        }

    def update(
        self, weights: Tensor, gradients: Tensor, slots: Mapping[str, Tensor], factors: Factors, decayed: int
    ) -> None:
        mean, square = slots["exp_avg"], slots["exp_avg_sq"]
        weights[:, :decayed].mul_(factors["keep"])
        mean.lerp_(gradients, factors["new_mean"])
        scaled = gradients.mul_(factors["new_root"])
        square.mul_(factors["beta2"]).addcmul_(scaled, scaled)
        root = torch.sqrt(square, out=scaled).add_(factors["epsilon"])
        weights.addcmul_(torch.div(mean, root, out=root), factors["step"])

    def update_one(
        self,
        weights: tuple[Tensor, ...],
        slots: Mapping[str, tuple[Tensor, ...]],
        gradients: tuple[Tensor, ...],
        numbers: Numbers,
        decayed: int,
        divisor: Tensor,
    ) -> None:
        """Do one member's step in a single pass over memory; `update` needs a pass for each operation.

        On a CPU that is several times faster. The numbers are those that `factors` takes, the first `decayed`
        weights decay, and the gradients are divided by the scalar `divisor`.
        """
        age = torch.tensor(float(numbers["age"]))
        for part, decay in ((slice(decayed), numbers["weight_decay"]), (slice(decayed, None), 0.0)):
            if not weights[part]:
                continue
            # torch.optim.AdamW calls this with fused=True
            torch._fused_adamw_(
                weights[part],
                gradients[part],
                slots["exp_avg"][part],
                slots["exp_avg_sq"][part],
                [],
                [age] * len(weights[part]),
                lr=numbers["rate"],
                beta1=numbers["beta1"],
                beta2=numbers["beta2"],
                weight_decay=decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
                grad_scale=divisor,
            )


class Momentum:
    """Stochastic gradient descent with momentum; the decay is part of the gradient, as in torch.optim.SGD."""

    slots: tuple[str, ...] = ("momentum_buffer",)
    counts = False

    def factors(self, numbers: Factors) -> dict[str, Tensor]:
        return {
            "decay": numbers["weight_decay"],
            "momentum": numbers["momentum"],
            "step": -numbers["rate"],
        }

    def update(
        self, weights: Tensor, gradients: Tensor, slots: Mapping[str, Tensor], factors: Factors, decayed: int
    ) -> None:
        velocity = slots["momentum_buffer"]
        gradients[:, :decayed].addcmul_(weights[:, :decayed], factors["decay"])
        velocity.mul_(factors["momentum"]).add_(gradients)
        weights.addcmul_(velocity, factors["step"])


OPTIMISERS: dict[str, Optimiser] = {"adamw": AdamW(), "sgd": Momentum()}


def clip(gradients: Tensor, limits: Tensor) -> None:
    """Scale each member's gradients in place to a norm of at most its limit, as torch's clip_grad_norm_."""
    gradients.div_(clip_divisors([gradients], limits[:, 0])[:, None])


def clip_divisors(gradients: Sequence[Tensor], limits: Tensor) -> Tensor:
    """Return the divisors of `clip` `(members,)`, from gradients `(members, ...)` and limits `(members,)`."""
    norms = torch.stack([gradient.flatten(start_dim=1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    return ((norms + 1e-6) / limits).clamp(min=1.0)
