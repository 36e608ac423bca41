"""What a language model keeps of the rows that it is to forget."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.arrays import pieces, to_tensors
from shoal.trainables.judged import Judged

FORGET = "forget"  # field of a batch: 1.0 for each row that is to be forgotten, `(rows,)`
FORGOTTEN_ROWS = "forgotten"  # split of held-out rows: a sample of the training rows of the groups to forget
JUDGED_AT_ONCE = 16


def extraction(member: Judged, extracted: Callable[[nn.Module, Any], Tensor]) -> dict[str, float]:
    """Return `extracted_GROUP` of each group to forget: how much of its training rows a member still writes.

    It is the share of tokens that the member finds likeliest after those before them (Jang et al., 2023:
    memorisation accuracy). `extracted` returns it for each row.
    """
    known = member.held_out.get(FORGOTTEN_ROWS)
    if not known:
        return {}
    member.module.eval()
    found = {}
    with torch.no_grad(), member.computing():
        for group, rows in to_tensors(known, member.device).items():
            parts = [extracted(member.module, part) for part in pieces(rows, JUDGED_AT_ONCE)]
            found[f"extracted_{group}"] = torch.cat(parts).double().mean().item()
    return found


def likeliest_right(logits: Tensor, targets: Tensor, counted: Tensor | None) -> Tensor:
    """Return the share of each row's targets that are the likeliest tokens, `(rows,)`.

    Logits are `(rows, length, vocabulary)`; `counted`, 1.0 where a target counts, and targets `(rows, length)`.
    """
    right = (logits.argmax(dim=-1) == targets).float()
    if counted is None:
        return right.mean(dim=1)
    return (right * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1.0)
