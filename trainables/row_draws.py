"""Random numbers of rows: they follow from a row's content and from one draw of the step.

So it does not matter which rows stand beside it in a batch, and in what order. A counter is hashed for each
number (Salmon et al., 2011), which works under vmap.
"""

import math

import torch
from torch import Tensor

FACTORS = (-7046029254386353131, -4658895280553007687, 6364136223846793005)  # odd numbers of 64 bits
BITS = 24  # so many bits of a uniform number are drawn, as float32 holds
STREAM = 2**32  # numbers of a stream


def scrambled(numbers: Tensor) -> Tensor:
    """Return whole numbers of 64 bits whose bits depend on all those of the given ones; they wrap around."""
    for factor, shift in zip(FACTORS, (31, 29, 32), strict=True):
        numbers = numbers * factor
        numbers = numbers ^ ((numbers >> shift) & ((1 << (64 - shift)) - 1))
    return numbers


def as_share(words: Tensor) -> Tensor:
    """Return hashed words as numbers in [0, 1)."""
    return ((words >> (64 - BITS)) & (2**BITS - 1)).float() / 2**BITS


def row_keys(x: Tensor) -> Tensor:
    """Return a key for each row of float32 numbers `(rows, ...)`: `(rows,)`, of its content and of this call.

    Equal rows of one call have equal keys.
    """
    flat = x.detach().flatten(start_dim=1)
    # a float32 times 2^24 tells apart all but the finest digits, and whole numbers have hashes that wrap
    words = (flat.clamp(-1e5, 1e5).double() * 2.0**BITS).round().long()
    places = scrambled(torch.arange(flat.shape[1], device=x.device))
    step = torch.randint(2**62, (), device=x.device)
    return scrambled(scrambled(words + places).sum(dim=1) + scrambled(step))


def uniform_of(keys: Tensor, stream: int, count: int = 1) -> Tensor:
    """Return `count` numbers in [0, 1) for each key, `(rows, count)`; streams are independent."""
    counters = torch.arange(stream * STREAM, stream * STREAM + count, device=keys.device)
    words = scrambled(keys[:, None] + scrambled(counters))
    return as_share(words)


def normal_of(keys: Tensor, stream: int, count: int) -> Tensor:
    """Return `count` normal numbers for each key, `(rows, count)` (Box and Muller, 1958)."""
    first, second = uniform_of(keys, stream, count), uniform_of(keys, stream + 1, count)
    return (-2 * torch.log1p(-first)).sqrt() * (2 * math.pi * second).cos()
