"""Numbers of few bits, in blocks of 32 with a power of two as their scale (OCP Microscaling, 2023): emulated.

What comes out is float32 and holds only values that the format has. No time is saved, and no memory.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from shoal.trainables.searched_numbers import FloatOrTensor

BLOCK_SIZE = 32  # elements that share a scale
SCALE_BITS = 8  # each block has a scale of so many
PLAIN_BITS = 32  # nothing is rounded
LEAST_EXPONENT = -126  # normal float32 has no smaller one


class Format(NamedTuple):
    """The elements of a block; a number of magnitude 2^E to 2^(E+1) is a multiple of 2^(E - mantissa)."""

    mantissa: float  # bits after the point
    least: float  # exponent below which the steps shrink no more: subnormal numbers
    largest: float  # largest element
    scaled: float = 1.0  # 1 if a block has a scale


def whole_numbers(bits: int) -> Format:
    """Return signed whole numbers of so many bits, as multiples of 2^(2 - bits): of 8 bits up to 127/64."""
    return Format(bits - 2, 0, 2 - 2.0 ** (2 - bits))


E2M1, E2M3, E3M2 = Format(1, 0, 6.0), Format(3, 0, 7.5), Format(2, -2, 28.0)
E4M3, E5M2 = Format(3, -6, 448.0), Format(2, -14, 57344.0)
# the range of float32 but for its last seven powers of two, and no scale
BFLOAT16 = Format(7, LEAST_EXPONENT + 7, 3.3895313892515355e38, 0.0)
FLOAT_FORMATS = {4: E2M1, 6: E2M3, 8: E4M3, 16: BFLOAT16}
WHOLE_FORMATS = {4: whole_numbers(4), 6: whole_numbers(6), 8: whole_numbers(8), 16: BFLOAT16}


def format_of(bits: FloatOrTensor, whole: bool) -> Format:
    """Return the format of so many bits; of a scalar tensor one whose numbers are scalar tensors."""
    known = WHOLE_FORMATS if whole else FLOAT_FORMATS
    if not isinstance(bits, Tensor):
        return known[int(bits)]
    columns = zip(*known.values(), strict=True)
    chosen = [
        sum(value * (bits == each) for each, value in zip(known, column, strict=True)) for column in columns
    ]
    return Format(*chosen)


def exponents(x: Tensor) -> Tensor:
    """Return floor(log2 x) of float32 numbers of at least 0, from their bits; -127 below the normal ones."""
    return (x.view(torch.int32) >> 23).to(torch.float32) - 127


def powers(exponent: Tensor) -> Tensor:
    """Return 2 to whole exponents from -126 to 127, exactly."""
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


def to_elements(x: Tensor, to: Format, draw: Tensor | None = None) -> Tensor:
    """Return float32 numbers as the nearest elements, ties to even; with `draw`, U[0, 1), at random."""
    size = x.abs()
    least = torch.as_tensor(to.least, dtype=torch.float32, device=x.device)
    step = powers(torch.maximum(exponents(size), least) - to.mantissa)
    steps = size / step
    steps = steps.round() if draw is None else (steps + draw).floor()
    largest = torch.as_tensor(to.largest, dtype=torch.float32, device=x.device)
    return torch.minimum(steps * step, largest).copysign(x)


def scales(most: Tensor, to: Format, up: bool = True) -> Tensor:
    """Return the scale of blocks whose largest magnitudes are given; 1 for a block of zeros.

    With `up` it is the least power of two under which nothing is cut off (Mishra et al., 2025). Without, it is
    that of the OCP's text, under which the largest of many blocks is.
    """
    largest = torch.as_tensor(to.largest, dtype=torch.float32, device=most.device)
    exponent = exponents(most) - exponents(largest)
    if up:
        # 2^exponent * largest reaches `most`, or the next power does: significands are compared exactly
        beyond = most * powers(-exponents(most).clamp(min=LEAST_EXPONENT)) > largest * powers(
            -exponents(largest)
        )
        exponent = exponent + beyond
    exponent = torch.where(most > 0, exponent.clamp(LEAST_EXPONENT, 126), torch.zeros_like(exponent))
    return powers(exponent * to.scaled)


def in_blocks(x: Tensor, to: Format, draw: bool = False, up: bool = True) -> Tensor:
    """Return numbers `(rows, length)` rounded in blocks along the last axis; the last block may be shorter."""
    rows, length = x.shape
    padded = torch.nn.functional.pad(x, (0, -length % BLOCK_SIZE)).view(rows, -1, BLOCK_SIZE)
    scale = scales(padded.abs().amax(dim=-1, keepdim=True), to, up)
    found = to_elements(padded / scale, to, torch.rand_like(padded) if draw else None) * scale
    return found.reshape(rows, -1)[:, :length]
