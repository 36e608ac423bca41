"""How well classes are told apart from a few rows each, without training (Ziko et al., 2020: LaplacianShot).

An episode has some classes, some support rows of each whose class is known, and other rows to be classified.
All are clustered together: a row goes by its distance from the classes' means, and by where its neighbours go.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from shoal.trainables.objectives.arithmetic import unit

EPISODES, QUERIES = 30, 10  # episodes of a score, and rows of a class that are classified in each
NEIGHBOURS, ITERATIONS = 3, 20
PULL = 0.5  # weight of a neighbour's class; their lambda, between 0.1 and 1.5


def few_shot(features: Tensor, labels: Tensor, known: Tensor, ways: int, shots: int) -> Tensor:
    """Return the share of rows that are classified rightly over fixed episodes; 0 where there is none.

    Features are `(rows, width)`, labels `(rows,)`, and `known` is 0 where a label is not known.
    """
    drawn = episodes(labels.cpu().numpy(), known.cpu().numpy() > 0, ways, shots)
    centred = unit(features - features.mean(dim=0))
    found = [episode_score(centred, support, query) for support, query in drawn]
    return torch.stack(found).mean() if found else centred.new_zeros(())


Episode = tuple[
    NDArray[np.int64], NDArray[np.int64]
]  # rows of support (ways, shots), and others (ways, queries)


def episodes(labels: NDArray[np.int64], known: NDArray[np.bool_], ways: int, shots: int) -> list[Episode]:
    """Return episodes that depend on the labels alone; classes of too few rows are in none."""
    rng, found = np.random.default_rng(0), []
    rows = {name: np.flatnonzero(known & (labels == name)) for name in np.unique(labels[known])}
    rows = {name: each for name, each in rows.items() if len(each) > shots}
    least = min([QUERIES + shots, *(len(each) for each in rows.values())])
    for _ in range(EPISODES if len(rows) > 1 else 0):
        chosen = rng.choice(len(rows), min(ways, len(rows)), replace=False)
        picked = np.stack([rng.permutation(list(rows.values())[each])[:least] for each in chosen])
        found.append((picked[:, :shots], picked[:, shots:]))
    return found


def episode_score(features: Tensor, support: NDArray[np.int64], query: NDArray[np.int64]) -> Tensor:
    ways, device = len(support), features.device
    one, other = (features[torch.from_numpy(each.reshape(-1)).to(device)] for each in (support, query))
    label = torch.arange(ways, device=device)
    # queries and support may lie apart as a whole (Liu et al., 2020)
    other = unit(other + one.mean(dim=0) - other.mean(dim=0))
    shares = clustered(one, one_hot(label.repeat_interleave(support.shape[1]), ways), other)
    return (shares.argmax(dim=-1) == label.repeat_interleave(query.shape[1])).double().mean()


def clustered(support: Tensor, known: Tensor, query: Tensor, pull: float = PULL) -> Tensor:
    """Return each query's shares of the classes, `(queries, ways)`; `known` are those of the support."""
    x, fixed = torch.cat([support, query]), known.to(query.dtype)
    near = neighbours(x)
    means = (fixed.T @ support) / fixed.sum(dim=0)[:, None]
    shares = (-squares_apart(query, means)).softmax(dim=-1)
    for _ in range(ITERATIONS):
        shares, means = moved_shares(x, fixed, shares, near, pull)
    return shares


def moved_shares(x: Tensor, fixed: Tensor, shares: Tensor, near: Tensor, pull: float) -> tuple[Tensor, Tensor]:
    """Return new means of the classes, which stay where no row is, and the queries' shares by them."""
    every = torch.cat([fixed, shares])
    means = (every.T @ x) / every.sum(dim=0).clamp(min=1e-6)[:, None]
    pulled = pull * (near @ every)[len(fixed) :]
    return (pulled - squares_apart(x[len(fixed) :], means)).softmax(dim=-1), means


def squares_apart(rows: Tensor, means: Tensor) -> Tensor:
    """Return squared distances, `(rows, ways)`."""
    return (rows[:, None] - means).square().sum(dim=-1)


def neighbours(x: Tensor) -> Tensor:
    """Return 1 where either of two rows is among the other's nearest, `(rows, rows)`: it is symmetric."""
    cosines = unit(x) @ unit(x).T
    itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
    order = cosines.masked_fill(itself, -torch.inf).topk(min(NEIGHBOURS, len(x) - 1), dim=-1).indices
    near = torch.zeros_like(cosines).scatter(1, order, 1.0)
    return torch.maximum(near, near.T)


def energy(x: Tensor, every: Tensor, means: Tensor, near: Tensor, pull: float) -> Tensor:
    """Return what the iterations lower if `near` is positive semi-definite: with half of `pull`."""
    entropy = (every * every.clamp(min=1e-30).log()).sum()
    return (every * squares_apart(x, means)).sum() - pull / 2 * (near * (every @ every.T)).sum() + entropy
