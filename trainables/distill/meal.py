"""MEAL V2 (Shen and Savvides, 2020): a student learns from the mean of several teachers, without labels."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def soft_target(logits: Tensor) -> Tensor:
    """Return the mean of the teachers' probabilities `(rows, classes)`, not of their logits.

    The logits are `(teachers, rows, classes)`.
    """
    return logits.detach().float().softmax(dim=-1).mean(dim=0)


def soft_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy with soft targets, in nats; its minimum is the entropy of the targets."""
    return -(target * logits.float().log_softmax(dim=-1)).sum(dim=-1).mean()


class Discriminator(nn.Module):
    """Takes logits `(rows, classes)` and returns a logit for each row, high for the student's."""

    def __init__(self, classes: int):
        super().__init__()
        first, second = max(classes // 8, 2), max(classes // 64, 2)
        bend = nn.LeakyReLU(0.2)  # so few units can all be dead from the start with a ReLU
        self.layers = nn.Sequential(
            nn.Linear(classes, first), bend, nn.Linear(first, second), bend, nn.Linear(second, 1)
        )

    def forward(self, logits: Tensor) -> Tensor:
        found: Tensor = self.layers(logits)
        return found[:, 0]


def adversarial_loss(
    discriminator: nn.Module, student: Tensor, teachers: Tensor, reverse: bool = True
) -> Tensor:
    """Return the discriminator's loss on the student's logits and the mean of the teachers'.

    With `reverse` the student's gradient is negated: descent then trains the discriminator to tell student
    and teachers apart, and the student to look like the teachers. Without it, as in the released code, the
    student becomes easier to recognise.
    """
    own = discriminator(Reversed.apply(student) if reverse else student)
    other = discriminator(teachers.detach().mean(dim=0))
    logits = torch.cat((own, other))
    labels = torch.cat((torch.ones_like(own), torch.zeros_like(other)))
    return functional.binary_cross_entropy_with_logits(logits, labels)


class Reversed(torch.autograd.Function):
    """The identity, with a negated gradient (Ganin and Lempitsky, 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]
