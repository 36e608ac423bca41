"""A labelled task by which networks are compared: all of a sub-space tuned at once, or one alone."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from shoal.trainables.batches import Shuffled
from shoal.trainables.distill.elastic import Transformer, linear
from shoal.trainables.distill.spaces import Subnet, SubSpace, sandwich
from shoal.trainables.tokenizer import Tokenizer


class Labelled(NamedTuple):
    """Rows of text, each with its class."""

    tokens: NDArray[np.int64]  # (rows, length)
    mask: NDArray[np.bool_]  # (rows, length), true at real tokens
    labels: NDArray[np.int64]  # (rows,), classes counted from 0


def labelled(texts: Sequence[str], labels: Sequence[int], tokenizer: Tokenizer, length: int) -> Labelled:
    """Return texts as rows of one length, in tokens: longer texts are cut, shorter ones are padded."""
    tokens, sizes = np.zeros((len(texts), length), np.int64), np.zeros(len(texts), np.int64)
    for row, text in enumerate(texts):
        ids = [*tokenizer.encode(text)[: length - 1].tolist(), tokenizer.end]
        tokens[row, : len(ids)], sizes[row] = ids, len(ids)
    return Labelled(tokens, np.arange(length) < sizes[:, None], np.array(labels, np.int64))


class Tuning(NamedTuple):
    """How a network is tuned to labels: AdamW, whose rate rises for a tenth of the steps, then falls to 0."""

    steps: int
    batch: int = 32
    learning_rate: float = 5e-4


def tune(
    network: Transformer,
    rows: Labelled,
    tuning: Tuning,
    seed: int,
    choose: Callable[[int], Sequence[Subnet | None]] = lambda step: [None],
) -> nn.Linear:
    """Train a network in place, with a head that reads the mean of its real tokens; return the head.

    `choose` returns the sub-networks of a step, whose gradients add up. By default it is the whole network.
    """
    torch.manual_seed(seed)
    device = next(network.parameters()).device
    head = nn.Linear(network.shape.width, int(rows.labels.max()) + 1).to(device)
    network.requires_grad_(True).train()
    weights = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(weights, tuning.learning_rate, weight_decay=0.01)
    steps = tuning.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (0.1 * steps), 1 - step / steps)
    )
    batches = Shuffled(tuple(rows), tuning.batch, seed)
    for step in range(steps):
        tokens, mask, labels = (torch.from_numpy(part).to(device) for part in batches.next())
        optimiser.zero_grad()
        for subnet in choose(step):
            functional.cross_entropy(classes(network, head, tokens, mask, subnet), labels).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
    network.eval()
    return head


def tune_together(
    network: Transformer, space: SubSpace, rows: Labelled, tuning: Tuning, seed: int
) -> nn.Linear:
    """Tune all networks of a sub-space at once by the sandwich rule, as AutoDistil's proxy task does."""

    def choose(step: int) -> Sequence[Subnet | None]:
        return sandwich(space, np.random.default_rng([seed, step]))

    return tune(network, rows, tuning, seed, choose)


def classes(
    network: Transformer, head: nn.Linear, tokens: Tensor, mask: Tensor, subnet: Subnet | None
) -> Tensor:
    """Return the logits `(rows, classes)`, which the head computes from the mean over the real tokens."""
    hidden = network(tokens, mask, subnet).hidden * mask[..., None]
    return linear(head, hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True), head.out_features)


@torch.no_grad()
def accuracy(network: Transformer, head: nn.Linear, rows: Labelled, subnet: Subnet | None = None) -> float:
    """Return the share of rows that are given their right class."""
    device, right = next(network.parameters()).device, 0
    for first in range(0, len(rows.tokens), 256):
        part = slice(first, first + 256)
        tokens, mask = (torch.tensor(each[part], device=device) for each in (rows.tokens, rows.mask))
        found = classes(network, head, tokens, mask, subnet).argmax(dim=-1).cpu().numpy()
        right += int(np.sum(found == rows.labels[part]))
    return right / len(rows.tokens)
