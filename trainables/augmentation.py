"""Rows of a classifier changed at random in training, each by draws of its own (see `row_draws`).

Images are moved and mirrored here; kornia turns them and changes their colours.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from shoal.trainables.row_draws import normal_of, row_keys, uniform_of
from shoal.trainables.searched_numbers import FloatOrTensor, used

# each kind of change has a stream of random numbers of its own
DROP, NOISE, FLIP, SHIFT, TURN, COLOUR = 0, 1, 3, 4, 6, 8
CHANNELS_OF_COLOUR = 3


def augment(x: Tensor, numbers: Mapping[str, FloatOrTensor], keys: Tensor) -> Tensor:
    """Return centred rows changed: images turned, moved, mirrored, numbers dropped to 0, and noise."""
    if x.dim() == 4:
        x = moved_about(x, numbers, keys)
    size = x[0].numel()
    if used(numbers["drop"]):
        x = torch.where(uniform_of(keys, DROP, size).view(x.shape) < numbers["drop"], torch.zeros_like(x), x)
    return x + numbers["noise"] * normal_of(keys, NOISE, size).view(x.shape) if used(numbers["noise"]) else x


def moved_about(x: Tensor, numbers: Mapping[str, FloatOrTensor], keys: Tensor) -> Tensor:
    """Return images turned and zoomed, then moved, then mirrored; what comes in is 0."""
    if used(numbers["rotate"]) or used(numbers["zoom"]):
        draws = 2 * uniform_of(keys, TURN, 2) - 1
        x = turned(x, numbers["rotate"] * draws[:, 0], 1 + numbers["zoom"] * draws[:, 1])
    if used(numbers["shift"]):
        draws = 2 * uniform_of(keys, SHIFT, 2) - 1
        x = shifted(shifted(x, numbers["shift"] * draws[:, 0], 2), numbers["shift"] * draws[:, 1], 3)
    if used(numbers["flip"]):
        mirrored = uniform_of(keys, FLIP)[:, :, None, None] < numbers["flip"]
        x = torch.where(mirrored, x.flip(-1), x)
    return x


def shifted(x: Tensor, shares: Tensor, axis: int) -> Tensor:
    """Return images moved along an axis by shares `(rows,)` of its size, in whole pixels; 0 comes in."""
    size = x.shape[axis]
    places = torch.arange(size, device=x.device) + (shares * size).round().long()[:, None]  # (rows, size)
    shape = (-1, 1, size, 1) if axis == 2 else (-1, 1, 1, size)
    inside = ((places >= 0) & (places < size)).view(shape)
    index = places.clamp(0, size - 1).view(shape).expand(x.shape)
    return torch.where(inside, x.gather(axis, index), torch.zeros_like(x))


def turned(x: Tensor, degrees: Tensor, scale: Tensor) -> Tensor:
    """Return images turned about their centres by degrees `(rows,)`, and enlarged by `scale` `(rows,)`."""
    across, down = (x.shape[3] - 1) / 2, (x.shape[2] - 1) / 2
    along, aside = scale * torch.deg2rad(degrees).cos(), scale * torch.deg2rad(degrees).sin()
    # kornia makes such a matrix too, but in place, which vmap does not allow
    first = torch.stack([along, aside, (1 - along) * across - aside * down], dim=-1)
    second = torch.stack([-aside, along, aside * across + (1 - along) * down], dim=-1)
    matrix = torch.stack([first, second], dim=-2)  # (rows, 2, 3)
    size = (x.shape[2], x.shape[3])
    found: Tensor = kornia().geometry.transform.warp_affine(x, matrix, size, align_corners=True)
    return found


def coloured(x: Tensor, numbers: Mapping[str, FloatOrTensor], keys: Tensor) -> Tensor:
    """Return images `(rows, channels, height, width)`, of numbers in [0, 1], in another light and colour."""
    draws = 2 * uniform_of(keys, COLOUR, 2) - 1
    if used(numbers["brightness"]):
        x = kornia().enhance.adjust_brightness(x, numbers["brightness"] * draws[:, 0])
    if used(numbers["saturation"]) and x.shape[1] == CHANNELS_OF_COLOUR:
        x = kornia().enhance.adjust_saturation(x, 1 + numbers["saturation"] * draws[:, 1])
    return x


def changed_rows(x: Tensor, centre: Tensor, spread: Tensor, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
    """Return rows, or images channels first, changed at random and centred."""
    keys = row_keys(x)
    if x.dim() == 4 and (used(numbers["brightness"]) or used(numbers["saturation"])):
        x = coloured(x, numbers, keys)
    return augment((x - centre) / spread, numbers, keys)


def kornia() -> Any:
    """Return the package, whose import takes a second that others are spared."""
    import kornia.enhance
    import kornia.geometry

    return kornia
