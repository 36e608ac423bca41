"""Which tokens of a row are hidden, and as what: by numbers that only the row and a salt decide.

Equal rows hide the same tokens under the same salt, whichever member, process or part of a batch has them.
"""

import torch
from torch import Tensor

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
