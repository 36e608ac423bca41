"""Self-distillation through auxiliary heads (LSSKD, 2025, arXiv 2506.07055; HSAKD, Yang et al., 2021).

Every stage of a network has a head that predicts class and rotation together, and each head learns from the
next deeper one. Without the heads, the network has its usual form.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from shoal.trainables.distill.losses import logit_loss

TURNS = 4


def rotated(images: Tensor) -> Tensor:
    """Return each image `(rows, channels, side, side)` turned by 0, 90, 180 and 270 degrees, in this order.

    The result is `(4 * rows, channels, side, side)`.
    """
    turned = torch.stack([images.rot90(turn, (2, 3)) for turn in range(TURNS)], dim=1)
    return turned.flatten(0, 1)


def joint_labels(labels: Tensor) -> Tensor:
    """Return the labels of the images that `rotated` returns, class * 4 + rotation: `(4 * rows,)`."""
    return (labels[:, None] * TURNS + torch.arange(TURNS, device=labels.device)).flatten()


def class_logits(joint: Tensor) -> Tensor:
    """Return the log-probability of each class, whatever the rotation: `(rows, classes)`."""
    return joint.log_softmax(dim=-1).unflatten(-1, (-1, TURNS)).logsumexp(dim=-1)


def self_distillation_loss(
    final: Tensor,
    heads: Sequence[Tensor],
    features: Sequence[Tensor],
    labels: Tensor,
    temperature: float = 3.0,
    logit_weight: float = 1.0,
    feature_weight: float = 0.0,
) -> Tensor:
    """Return the loss of a batch of `rotated` images: a scalar.

    `final` `(4 * rows, classes)` are the network's own logits. `heads` are the joint logits of each stage,
    `(4 * rows, 4 * classes)`, from the first to the last. `features` are the inputs of the heads, brought to
    one width `(4 * rows, width)`; they are needed only with a feature weight. `labels` are `(rows,)`. The final
    logits teach the last head its classes, and each head teaches the one before; no teacher gets a gradient.
    """
    joint = joint_labels(labels)
    loss = functional.cross_entropy(final[::TURNS], labels)
    for place, head in enumerate(heads):
        loss = loss + functional.cross_entropy(head, joint)
        if place + 1 < len(heads):
            loss = loss + logit_weight * logit_loss(head, heads[place + 1], temperature)
            if feature_weight:
                near = functional.mse_loss(features[place], features[place + 1].detach())
                loss = loss + feature_weight * near
        else:
            # only upright images, because the network's own logits know nothing of rotations
            own = class_logits(head[::TURNS])
            loss = loss + logit_weight * logit_loss(own, final[::TURNS], temperature)
    return loss
