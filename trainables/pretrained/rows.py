"""Rows of tokens as a pretrained model sees them: which count, where each stands, and what it may look at."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shoal.trainables.decoder import seen_within
from shoal.trainables.searched_numbers import FloatOrTensor, used


class Seen(NamedTuple):
    """Rows of tokens, and what belongs to them; all are `(rows, length)`."""

    tokens: Tensor
    targets: Tensor  # the token to find at each place: the next one, or one that is hidden there
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
    return Seen(*plain, places_within(segment), seen_within(segment))


def places_within(segment: Tensor) -> Tensor:
    """Return where each token stands in its example, from 0, `(rows, length)`."""
    places = torch.arange(segment.shape[1], device=segment.device)
    same = segment[:, 1:] == segment[:, :-1]
    begins = torch.cat([torch.ones_like(same[:, :1]), ~same], dim=1)
    return places - torch.where(begins, places, 0).cummax(dim=1).values


def asked(rows: Seen) -> dict[str, Any]:
    """Return the arguments of transformers' modules for rows."""
    return {
        "input_ids": rows.tokens,
        "attention_mask": rows.attention,
        "position_ids": rows.positions,
        "use_cache": False,
    }


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


def by_token(number: FloatOrTensor, counts: Tensor) -> Tensor | None:
    """Return a number, or each member's, for every token that counts in `(rows, length)`: `(tokens,)`.

    None stands for a number that is 0 for all.
    """
    if not used(number):
        return None
    if not isinstance(number, Tensor):
        return torch.full((int(counts.sum()),), float(number), device=counts.device)
    each = number.float().repeat_interleave(len(counts) // number.numel())  # (rows,)
    return each[:, None].expand(counts.shape)[counts]


def objective_numbers(numbers: Mapping[str, FloatOrTensor], rows: int) -> dict[str, FloatOrTensor]:
    """Return the numbers of an objective, those of a stack's members for each of their rows, `(rows,)`."""
    return {name: by_row(each, rows) for name, each in numbers.items() if name.startswith("objective.")}
