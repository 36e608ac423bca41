"""Torch's global random numbers, which the members of one process share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def restored(device: torch.device) -> Iterator[None]:
    """Restore the global random numbers at the end, whatever was drawn inside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def reseed(seed: int, device: torch.device) -> None:
    # torch.manual_seed also asks every other kind of device: 0.1 ms, a tenth of a small network's step
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
