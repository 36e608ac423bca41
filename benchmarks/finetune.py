"""Fine-tuning of an encoder to two classes, the same for all."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.sentences import Sentences
from trainables.batches import Shuffled
from trainables.distill.encoder import Encoder

RATE, BATCH = 5e-4, 32


def fine_tuned(network: Encoder, train: Sentences, test: Sentences, epochs: int, seed: int) -> float:
    """Train a copy of nothing: the network itself is tuned; return its accuracy on the test rows."""
    torch.manual_seed(seed)
    head = nn.Linear(network.shape.width, 2)
    network.requires_grad_(True).train()
    optimiser = torch.optim.AdamW([*network.parameters(), *head.parameters()], RATE, weight_decay=0.01)
    steps = epochs * (len(train.tokens) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (0.1 * steps), 1 - step / steps)
    )
    rows = Shuffled(tuple(train), BATCH, seed)
    for _ in range(steps):
        tokens, mask, labels = (torch.from_numpy(part) for part in rows.next())
        optimiser.zero_grad()
        functional.cross_entropy(head(summary(network, tokens, mask)), labels).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    network.eval()
    return round(accuracy(network, head, test), 4)


def summary(network: Encoder, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the real tokens' stream: `(rows, width)`."""
    hidden = network(tokens, mask).hidden * mask[..., None]
    mean: torch.Tensor = hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)
    return mean


@torch.no_grad()
def accuracy(network: Encoder, head: nn.Module, rows: Sentences) -> float:
    right = 0
    for first in range(0, len(rows.tokens), 256):
        part = slice(first, first + 256)
        tokens, mask = torch.from_numpy(rows.tokens[part]), torch.from_numpy(rows.mask[part])
        found = head(summary(network, tokens, mask)).argmax(dim=-1).numpy()
        right += int(np.sum(found == rows.labels[part]))
    return right / len(rows.tokens)
