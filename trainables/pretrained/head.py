"""The losses of tokens behind a frozen head, without its logits in memory.

A vocabulary of 50,000 makes logits a hundred times larger than what they come from. The gradient of a token's
loss depends on this token alone, so the forward pass finds it chunk by chunk, and the backward one scales it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

TOKENS_AT_A_TIME = 256  # tokens whose logits are in memory at a time


class FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # (tokens, width)
        weight: Tensor,  # (vocabulary, width)
        bias: Tensor | None,
        targets: Tensor,  # (tokens,)
        smoothing: Tensor,  # (tokens,)
        z_loss: Tensor,  # (tokens,)
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        losses, slopes = [], []
        parts = (each.split(TOKENS_AT_A_TIME) for each in (hidden, targets, smoothing, z_loss))
        for part, target, smooth, z in zip(*parts, strict=True):
            logits = functional.linear(part, weight, bias).float()
            losses.append(losses_of_logits(logits, target, smooth, z))
            if wanted:
                slopes.append(
                    (slopes_of_logits(logits, target, smooth, z).to(weight.dtype) @ weight).to(part.dtype)
                )
        if wanted:
            ctx.save_for_backward(torch.cat(slopes) if slopes else hidden)
        return torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (slopes,) = ctx.saved_tensors
        return grads[0][:, None].to(slopes.dtype) * slopes, None, None, None, None, None


def losses_of_logits(logits: Tensor, targets: Tensor, smoothing: Tensor, z_loss: Tensor) -> Tensor:
    """Return the loss of each token in nats, `(tokens,)`, with its label smoothing and z-loss."""
    top = logits.logsumexp(dim=-1)
    hard = top - logits.gather(-1, targets[:, None])[:, 0]
    return hard + smoothing * (top - logits.mean(dim=-1) - hard) + z_loss * top.square()


def slopes_of_logits(logits: Tensor, targets: Tensor, smoothing: Tensor, z_loss: Tensor) -> Tensor:
    """Return the gradients of these losses, `(tokens, vocabulary)`, in the memory of the logits."""
    top = logits.logsumexp(dim=-1, keepdim=True)
    slopes = logits.sub_(top).exp_().mul_(1 + 2 * z_loss[:, None] * top)
    slopes.scatter_add_(1, targets[:, None], (smoothing - 1)[:, None])
    return slopes.sub_((smoothing / slopes.shape[1])[:, None])
