"""How well rows are classified; every score is 1 at best, and rows of weight 0 count in none.

Values are `(rows, classes)`, the largest for the predicted class; labels and weights are `(rows,)`.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def share_of_hits(values: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    right = (values.argmax(dim=-1) == labels).double()
    return (right * weights).sum() / weights.sum().clamp(min=1.0)


def macro_f1(values: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of the classes' F1, over the classes that are there or are predicted."""
    classes = values.shape[-1]
    true = one_hot(labels, classes).double() * weights[:, None]
    guessed = one_hot(values.argmax(dim=-1), classes).double() * weights[:, None]
    both = (true * one_hot(values.argmax(dim=-1), classes)).sum(dim=0)
    total = true.sum(dim=0) + guessed.sum(dim=0)
    return (2 * both / total.clamp(min=1.0)).sum() / (total > 0).sum().clamp(min=1)


def auroc(values: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the chance that a row of a class has a larger probability of it than another row has.

    It is the mean over the classes that are there, of which each is compared with all others.
    """
    chances = values.double().softmax(dim=-1)
    true = one_hot(labels, values.shape[-1]).double()
    found, there = [], []
    for place in range(values.shape[-1]):
        own, mine = chances[:, place].contiguous(), true[:, place] * weights
        others = (1 - true[:, place]) * weights
        ordered, order = own.sort()
        passed = torch.cat([torch.zeros_like(own[:1]), others[order].cumsum(dim=0)])  # below each place
        below, upto = (passed[torch.searchsorted(ordered, own, right=right)] for right in (False, True))
        pairs = mine.sum() * others.sum()
        found.append((mine * (below + upto) / 2).sum() / pairs.clamp(min=1.0))
        there.append((pairs > 0).double())
    return torch.stack(found).sum() / torch.stack(there).sum().clamp(min=1.0)
