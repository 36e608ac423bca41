"""The losses of tokens behind a frozen head, without its logits in memory.

A vocabulary of 50,000 makes logits a hundred times larger than what they come from. The gradient of a token's
loss depends on this token alone, so the forward pass finds it chunk by chunk, and the backward one scales it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from shoal.trainables.searched_numbers import cross_entropy

TOKENS_AT_A_TIME = 256  # tokens whose logits are in memory at a time


class FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # (tokens, width)
        weight: Tensor,  # (vocabulary, width)
        bias: Tensor | None,
        targets: Tensor,  # (tokens,)
        smoothing: Tensor | None,  # (tokens,); None: there is none
        z_loss: Tensor | None,  # (tokens,); None: there is none
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        losses, slopes = [hidden.new_zeros(0, dtype=torch.float32)], [hidden[:0]]
        for start in range(0, len(hidden), TOKENS_AT_A_TIME):
            now = slice(start, start + TOKENS_AT_A_TIME)
            logits = functional.linear(hidden[now], weight, bias).float()
            smooth, z = (None if each is None else each[now, None] for each in (smoothing, z_loss))
            top = logits.logsumexp(dim=-1, keepdim=True)
            losses.append(losses_of(logits, top, targets[now, None], smooth, z)[:, 0])
            if wanted:
                found = slopes_of(logits, top, targets[now, None], smooth, z)
                slopes.append((found.to(weight.dtype) @ weight).to(hidden.dtype))
        if wanted:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (slopes,) = ctx.saved_tensors
        return grads[0][:, None].to(slopes.dtype) * slopes, None, None, None, None, None


def losses_of(logits: Tensor, top: Tensor, targets: Tensor, smooth: Tensor | None, z: Tensor | None) -> Tensor:
    """Return the loss of each token in nats, `(tokens, 1)`; `top` is the log-partition of its logits."""
    found = top - logits.gather(-1, targets)
    if smooth is not None:
        found = found + smooth * (top - logits.mean(dim=-1, keepdim=True) - found)
    return found if z is None else found + z * top.square()


def slopes_of(logits: Tensor, top: Tensor, targets: Tensor, smooth: Tensor | None, z: Tensor | None) -> Tensor:
    """Return the gradients of these losses, `(tokens, vocabulary)`, in the memory of the logits."""
    found = logits.sub_(top).exp_()
    if z is not None:
        found.mul_(1 + 2 * z * top)
    rest = torch.ones_like(top) if smooth is None else 1 - smooth
    found.scatter_add_(1, targets, -rest)
    return found if smooth is None else found.sub_(smooth / found.shape[1])


def plain_losses(logits: Tensor, targets: Tensor, smoothing: Tensor | None, z_loss: Tensor | None) -> Tensor:
    """Return the loss of each token in nats, `(tokens,)`, of logits `(tokens, vocabulary)`."""
    logits = logits.float()
    losses = cross_entropy(logits, targets, 0.0 if smoothing is None else smoothing)
    return losses if z_loss is None else losses + z_loss * logits.logsumexp(dim=-1).square()
