"""Functions whose numbers may be hyperparameters: a float for one member, a scalar tensor in a stack."""

import torch
from torch import Tensor
from torch.nn import functional

FloatOrTensor = float | Tensor


def used(number: FloatOrTensor) -> bool:
    """Say whether a loss of this weight must be computed; a tensor need not be 0 for every member."""
    return isinstance(number, Tensor) or number != 0


def dropout(x: Tensor, rate: FloatOrTensor, training: bool) -> Tensor:
    """Return `x` after torch's dropout, whose rate may be a tensor here."""
    if not isinstance(rate, Tensor):
        return functional.dropout(x, rate, training)
    if not training:
        return x
    return x * (torch.rand_like(x) >= rate) / (1 - rate)


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: FloatOrTensor = 0.0) -> Tensor:
    """Return the loss of each row, in nats: logits `(rows, classes)`, targets and losses `(rows,)`."""
    if not isinstance(label_smoothing, Tensor):
        return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    logs = logits.log_softmax(dim=-1)
    hard = -logs.gather(-1, targets[:, None])[:, 0]
    return (1 - label_smoothing) * hard - label_smoothing * logs.mean(dim=-1)


def squared_log_partition(logits: Tensor) -> Tensor:
    """Return each row's mean square of the log-partition function (Chowdhery et al., 2022): `(rows,)`.

    Logits are `(rows, length, classes)`.
    """
    return logits.float().logsumexp(dim=-1).square().mean(dim=1)
