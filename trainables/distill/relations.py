"""Self-attention relations, which a student learns from its teacher's last layer (MiniLMv2, Wang et al., 2021).

Student and teacher may differ in width and heads, because both are split anew into relation heads.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

RELATION_KINDS = ("kl", "mse")
NEVER = -1e30  # softmax turns this score into exactly 0; it is finite, because 0 * inf is NaN


def relation_heads_fit(width: int, heads: int) -> bool:
    return heads > 0 and width % heads == 0


def relation_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    heads: int,
    mask: Tensor | None = None,
    kind: str = "kl",
    chunk: int | None = None,
) -> Tensor:
    """Return the sum over queries, keys and values of the mean distance of their relations: a scalar.

    `student` and `teacher` are each queries, keys and values `(rows, length, width)`. Their widths may differ,
    but `heads` must divide both. `mask` `(rows, length)` is true at real tokens: the others neither attend nor
    are attended to. The kind "kl" is the KL divergence of the student's softmaxed relations from the teacher's,
    in nats, averaged over relation heads and real tokens. "mse" is the squared difference of the raw relations,
    averaged over pairs of real tokens, as in AutoDistil's released code. With a `chunk`, only so many heads are
    in memory at once; they are computed again for the gradient. Raises ValueError for another kind, or if
    `heads` does not divide a width.
    """
    if kind not in RELATION_KINDS:
        raise ValueError(f"kind must be one of {', '.join(RELATION_KINDS)}, got {kind!r}.")
    rows, length = student[0].shape[:2]
    real = student[0].new_ones((rows, length), dtype=torch.bool) if mask is None else mask
    total = torch.zeros((), device=real.device)
    for own, other in zip(student, teacher, strict=True):
        ours, theirs = split_relation_heads(own, heads), split_relation_heads(other.detach(), heads)
        step = chunk or heads
        for first in range(0, heads, step):
            part = slice(first, first + step)
            arguments = ours[:, part], theirs[:, part], real, kind
            if step < heads and torch.is_grad_enabled():
                total = total + checkpoint(distance, *arguments, use_reentrant=False)
            else:
                total = total + distance(*arguments)
    return total / heads


def split_relation_heads(x: Tensor, heads: int) -> Tensor:
    """Return `(rows, length, width)` as `(rows, heads, length, width / heads)`, in at least float32."""
    if not relation_heads_fit(x.shape[-1], heads):
        raise ValueError(f"relation heads must divide the width {x.shape[-1]}, got {heads}.")
    precise = x if x.dtype == torch.float64 else x.float()
    return precise.unflatten(-1, (heads, -1)).transpose(1, 2)


def distance(student: Tensor, teacher: Tensor, real: Tensor, kind: str) -> Tensor:
    """Return the sum over heads of the mean distance over real tokens."""
    ours, theirs = products(student), products(teacher)
    keys, queries = real[:, None, None, :], real[:, None, :, None]
    if kind == "mse":
        pairs = keys & queries
        return ((ours - theirs).square() * pairs).sum() / pairs.sum()
    log_student, log_teacher = (scores.masked_fill(~keys, NEVER).log_softmax(-1) for scores in (ours, theirs))
    each = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1)
    return (each * queries[..., 0]).sum() / real.sum()


def products(x: Tensor) -> Tensor:
    """Return every token's scaled products with every other: `(rows, heads, length, length)`."""
    return x @ x.transpose(-1, -2) / x.shape[-1] ** 0.5


def relations(seen: Any) -> tuple[Tensor, Tensor, Tensor]:
    return seen.queries, seen.keys, seen.values
