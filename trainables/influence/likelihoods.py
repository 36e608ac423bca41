"""What influence functions need of a model: the loss of rows, and that of labels which the model draws itself.

Losses are sums over a row's tokens: only then is the covariance of gradients the Gauss-Newton matrix.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoal.trainables.pretrained.rows import seen
from shoal.trainables.scoring import PADDING, answer_logits, logits_of

LabelledRows = Any  # a model takes tokens, or pairs of inputs and labels


class Likelihood(Protocol):
    """A model of labels; its module is in evaluation mode, so that nothing in it is random."""

    module: nn.Module

    def losses(self, rows: LabelledRows) -> Tensor:
        """Return minus the log-likelihood of each row, summed over its tokens, in nats: `(rows,)`."""

    def sampled(self, rows: LabelledRows, draws: torch.Generator) -> Tensor:
        """Return the same for labels that are drawn from what the model predicts."""


class NextTokens:
    """A language model on rows of tokens `(rows, length)`; shorter rows end in tokens of -1.

    Of rows of instructions, which are tensors by field, the answers' tokens alone count.
    """

    def __init__(self, module: nn.Module):
        self.module = module

    def losses(self, rows: Tensor | Mapping[str, Tensor]) -> Tensor:
        return summed(*self.predicted(rows))

    def sampled(self, rows: Tensor | Mapping[str, Tensor], draws: torch.Generator) -> Tensor:
        logits, labels = self.predicted(rows)
        return summed(logits, drawn_classes(logits, draws).masked_fill(labels < 0, PADDING))

    def predicted(self, rows: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits of each next token, and that token, or -1 where none counts."""
        if isinstance(rows, Tensor):
            return logits_of(self.module, rows)[:, :-1].float(), rows[:, 1:]
        told = seen(rows)
        logits = answer_logits(self.module, rows).float()
        return logits, told.targets.masked_fill(told.counted == 0, PADDING)


class Classes:
    """A classifier on pairs of inputs and labels, `(rows, ...)` and `(rows,)`."""

    def __init__(self, module: nn.Module):
        self.module = module

    def losses(self, rows: tuple[Tensor, Tensor]) -> Tensor:
        return summed(self.module(rows[0])[:, None], rows[1][:, None])

    def sampled(self, rows: tuple[Tensor, Tensor], draws: torch.Generator) -> Tensor:
        logits = self.module(rows[0])[:, None]
        return summed(logits, drawn_classes(logits, draws))


class Gaussian:
    """A regression on pairs `(rows, ...)` and `(rows, outputs)`, with noise of variance 1 around it."""

    def __init__(self, module: nn.Module):
        self.module = module

    def losses(self, rows: tuple[Tensor, Tensor]) -> Tensor:
        return 0.5 * (self.module(rows[0]) - rows[1]).square().flatten(1).sum(dim=1)

    def sampled(self, rows: tuple[Tensor, Tensor], draws: torch.Generator) -> Tensor:
        mean = self.module(rows[0])
        noise = torch.randn(mean.shape, generator=draws, dtype=mean.dtype).to(mean.device)
        return 0.5 * (mean - mean.detach() - noise).square().flatten(1).sum(dim=1)


def summed(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each row's cross-entropy, summed over its tokens, of `(rows, tokens, classes)`."""
    losses = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten().long(), reduction="none", ignore_index=PADDING
    )
    return losses.view(labels.shape).sum(dim=1)


def drawn_classes(logits: Tensor, draws: torch.Generator) -> Tensor:
    """Return a class for each token, drawn as the logits say: `(rows, tokens)`."""
    chances = logits.detach().flatten(0, 1).softmax(dim=-1).cpu()
    return torch.multinomial(chances, 1, generator=draws).view(logits.shape[:2]).to(logits.device)
