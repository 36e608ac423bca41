"""Losses for distilling from a teacher's logits and from its residual stream."""

from torch import Tensor
from torch.nn import functional


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return each row's KL divergence of softened class probabilities, in nats (Hinton et al., 2015).

    Logits `(..., classes)` in, `(...,)` out. The factor temperature^2 keeps the gradient's size.
    """
    log_student = (student.float() / temperature).log_softmax(-1)
    log_teacher = (teacher.detach().float() / temperature).log_softmax(-1)
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1)


def logit_loss(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Return the mean `softened_divergence` over all rows, or over those where `mask` is true."""
    return masked_mean(softened_divergence(student, teacher, temperature), mask)


def hidden_loss(
    student: Tensor, teacher: Tensor, projection: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Return the mean squared difference of two streams `(rows, length, width)` (Romero et al., 2015).

    `projection` `(teacher's width, student's width)` is needed where the widths differ; without it they must
    be equal, else ValueError is raised.
    """
    if projection is None and student.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            f"the widths {student.shape[-1]} and {teacher.shape[-1]} differ: a projection is needed."
        )
    seen = student if projection is None else functional.linear(student, projection)
    return masked_mean((seen.float() - teacher.detach().float()).square().mean(dim=-1), mask)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    return values.mean() if mask is None else (values * mask).sum() / mask.sum()
