"""Rows of tokens as a pretrained model sees them: which count, where each stands, and what it may look at."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shoal.trainables.searched_numbers import FloatOrTensor


class Seen(NamedTuple):
    """Rows of tokens, and what belongs to them; all are `(rows, length)`."""

    tokens: Tensor
    targets: Tensor  # the next token of each place
    counted: Tensor  # 1.0 where the loss at this place counts, else 0.0
    positions: Tensor | None = None  # None: 0, 1, ... in every row
    attention: Tensor | None = (
        None  # True where a place may look, (rows, 1, length, length); None: at all before it
    )


def seen(batch: Any) -> Seen:
    """Return rows of plain tokens `(rows, length)`, or of records with `tokens`, and `mask` and `segment`.

    The mask is 1 where a token's own loss counts: at the place before it, which predicts it. In a row of
    several examples positions begin at 0 in each, and no place looks into another example.
    """
    if not isinstance(batch, Mapping) or "mask" not in batch:
        tokens = (batch["tokens"] if isinstance(batch, Mapping) else batch).long()
        counted = torch.ones(tokens.shape, device=tokens.device)
        counted[:, -1] = 0.0
        return Seen(tokens, tokens.roll(-1, dims=1), counted)
    tokens = batch["tokens"].long()
    segment = batch["segment"].long() if "segment" in batch else torch.ones_like(tokens)
    same = segment[:, 1:] == segment[:, :-1]
    counted = torch.zeros(tokens.shape, device=tokens.device)
    counted[:, :-1] = (same & (batch["mask"][:, 1:] > 0) & (segment[:, 1:] > 0)).to(counted.dtype)
    plain = tokens, tokens.roll(-1, dims=1), counted
    if not packed(segment):
        return Seen(*plain)
    places = torch.arange(tokens.shape[1], device=tokens.device)
    begins = torch.cat([torch.ones_like(same[:, :1]), ~same], dim=1)
    starts = torch.where(begins, places, 0).cummax(dim=1).values
    before = places[:, None] >= places[None, :]
    attention = (segment[:, None, :, None] == segment[:, None, None, :]) & before
    return Seen(*plain, places - starts, attention)


def rows_where(rows: Seen, wanted: Tensor) -> Seen:
    """Return the rows for which `wanted`, `(rows,)`, is True."""
    return Seen(*(None if part is None else part[wanted] for part in rows))  # type: ignore[arg-type]


def packed(segment: Tensor) -> bool:
    """Say whether a row holds several examples, or does not begin with one."""
    return bool(((segment > 1) | (segment[:, :1] == 0)).any())


def mean_counted(losses: Tensor, counted: Tensor) -> Tensor:
    """Return each row's mean over what counts in it, `(rows,)`; 0 where nothing does."""
    return (losses * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1.0)


def by_row(number: FloatOrTensor, rows: int) -> FloatOrTensor:
    """Return a number, or each member's for its rows of a stack, `(rows,)`."""
    if not isinstance(number, Tensor) or number.dim() == 0:
        return number
    return number.float().repeat_interleave(rows // number.numel())
