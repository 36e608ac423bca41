"""Which tokens of a row are hidden, and as what: by numbers that only the row and a salt decide.

Equal rows hide the same tokens under the same salt, whichever member, process or part of a batch has them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shoal.trainables.objectives.weighted import Weighted
from shoal.trainables.pretrained.rows import by_row
from shoal.trainables.row_draws import as_share, scrambled
from shoal.trainables.searched_numbers import FloatOrTensor

# 80 % of the hidden tokens have no vector, 10 % are other tokens, and the rest stays in sight
BLANK, OTHER = 0.8, 0.9
JUDGED_SHARE = 0.15  # share of the tokens that are hidden where rows are judged, whatever a member trains by


def draws(tokens: Tensor, salt: Tensor | int, stream: int) -> Tensor:
    """Return a number in [0, 1) for each place of `(rows, length)`: the same ones for a row and a salt."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    row = scrambled(tokens.long() + scrambled(places)).sum(dim=1, keepdim=True)
    return as_share(scrambled(scrambled(row + scrambled(salt + torch.full_like(row, 1 + stream))) + places))


def to_find(tokens: Tensor, counts: Tensor, share: FloatOrTensor, salt: Tensor | int) -> Tensor:
    """Return which tokens are to be found, `(rows, length)`: a share of those that count, at least one.

    `counts` is True where a token counts, as `(rows, length)`. A row without such tokens has none.
    """
    order = draws(tokens, salt, 0).masked_fill(~counts, 2.0)
    ranks = order.argsort(dim=1).argsort(dim=1)
    wanted = (share * counts.sum(dim=1, keepdim=True)).round().clamp(min=1.0)
    return counts & (ranks < wanted)


def as_seen(tokens: Tensor, found: Tensor, vocabulary: int, salt: Tensor | int) -> tuple[Tensor, Tensor]:
    """Return the tokens as they are read, and which of them have no vector, `(rows, length)` both.

    Of the tokens to find, `found`, 80 % have no vector, and 10 % are drawn anew (Devlin et al., 2019).
    """
    which = draws(tokens, salt, 1)
    other = (draws(tokens, salt, 2) * vocabulary).long().clamp(max=vocabulary - 1)
    replaced = found & (which >= BLANK) & (which < OTHER)
    return torch.where(replaced, other, tokens), found & (which < BLANK)


class Hidden(NamedTuple):
    """Rows of which some tokens are hidden; all are `(rows, length)`."""

    tokens: Tensor  # those to find
    found: Tensor  # True where a token is to be found
    read: Tensor  # the tokens as they are read
    blank: Tensor  # True where a token has no vector
    segment: Tensor | None  # numbers the examples of a row; None: a row is one


def hides(losses: Weighted | None) -> bool:
    """Say whether an objective wants hidden tokens found from both sides, and not the next one."""
    return losses is not None and "hidden_nats" in losses.needs


def with_hidden(batch: Any, vocabulary: int, training: bool, numbers: Mapping[str, FloatOrTensor]) -> Hidden:
    """Return a batch of tokens or of instructions, of whose answers alone some tokens are hidden.

    Rows that are judged hide the same tokens each time, and those in training others at each step.
    """
    tokens = (batch["tokens"] if isinstance(batch, Mapping) else batch).long()
    share = by_row(numbers["objective.masked.share"], len(tokens)) if training else JUDGED_SHARE
    if isinstance(share, Tensor) and share.dim():
        share = share[:, None]
    salt = torch.randint(2**62, (), device=tokens.device) if training else 0
    segment = batch["segment"].long() if isinstance(batch, Mapping) and "segment" in batch else None
    counts = torch.ones_like(tokens, dtype=torch.bool)
    if segment is not None:
        counts = (segment > 0) & (batch["mask"] > 0)
    found = to_find(tokens, counts, share, salt)
    return Hidden(tokens, found, *as_seen(tokens, found, vocabulary, salt), segment)
