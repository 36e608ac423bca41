"""Memory that was freed and that the C library still keeps: holes between what is in use."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # processes without torch give memory back too
    from torch import nn

CALLS = 4  # computed layers between two times that holes are given back


@cache
def malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's function that gives free pages back to the system; None where the library is another."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_holes_back(module: nn.Module) -> None:
    """Let a model of transformers that computes its layers again give free pages back meanwhile, in place.

    A layer's large tensors come and go, and each small one that stays takes a piece of a hole, after which no
    large one fits in: holes then come to more memory than all that is used. On a GPU nothing is done.
    """
    trim, calls = malloc_trim(), itertools.count(1)
    if trim is None or any(weight.device.type != "cpu" for weight in module.parameters()):
        return
    for part in module.modules():
        again = getattr(part, "_gradient_checkpointing_func", None)
        if again is not None:
            part._gradient_checkpointing_func = partial(checkpoint_trimmed, again, trim, calls)  # type: ignore[assignment]


def checkpoint_trimmed(
    again: Callable[..., Any], trim: Callable[[int], int], calls: Any, layer: Callable[..., Any], *given: Any
) -> Any:
    """Compute a layer now and again in the backward pass; both times count as calls."""

    def trimmed(*given: Any) -> Any:
        if next(calls) % CALLS == 0:
            trim(0)
        return layer(*given)

    return again(trimmed, *given)
