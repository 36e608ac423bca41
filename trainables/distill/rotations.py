"""Self-distillation through auxiliary heads (LSSKD, 2025, arXiv 2506.07055; HSAKD, Yang et al., 2021).

Every stage of a network has a head that tells class and rotation together; deeper heads teach the
shallower ones. Without its heads the network is as it was.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trainables.distill.losses import logit_loss

TURNS = 4


def rotated(images: Tensor) -> Tensor:
    """Return each image `(rows, channels, side, side)` turned by 0, 90, 180 and 270 degrees, side by side."""
    turned = torch.stack([images.rot90(turn, (2, 3)) for turn in range(TURNS)], dim=1)
    return turned.flatten(0, 1)


def joint_labels(labels: Tensor) -> Tensor:
    """Return class * 4 + rotation for what `rotated` makes of the rows."""
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

    `final` `(4 * rows, classes)` are the network's own logits, `heads` each stage's joint ones
    `(4 * rows, 4 * classes)` from the first to the last, `features` what each stage hands to its head,
    brought to one width `(4 * rows, width)`, if they count; `labels` `(rows,)`. The last head is taught by
    the final logits through its classes, every other by the next head; no teacher gets a gradient from that.
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
            # only upright images: the network's own logits know nothing of rotations
            own = class_logits(head[::TURNS])
            loss = loss + logit_weight * logit_loss(own, final[::TURNS], temperature)
    return loss
