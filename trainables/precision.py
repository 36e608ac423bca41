"""In which numbers a forward pass computes: weights, slots, norms and losses stay float32."""

from contextlib import AbstractContextManager

import torch


def computing(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Return a context for a forward pass and its loss; the backward pass follows by itself, and stays outside.

    Casts are not kept, since a stack's weights change in place.
    """
    return torch.autocast(device.type, torch.bfloat16, precision == "bfloat16", cache_enabled=False)
