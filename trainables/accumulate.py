"""A batch in parts, one after another: less memory, and the gradient of the whole batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from shoal.trainables.arrays import map_nest

FOUND = "found"  # the key of weights that were found from the losses of the whole batch
PartObjective = Callable[[Any], tuple[Tensor, Tensor]]  # a batch -> what is minimised, and the losses
# the losses of a whole batch, and what came with it -> the weights of its rows
Weigh = Callable[[Tensor, Any], Tensor]


def in_parts(
    objective: PartObjective,
    descend: Callable[[Tensor], None],
    batch: Any,
    parts: int,
    axis: int = 0,  # the axis of the rows: 1 in a stack, whose first one is the members
    weigh: Weigh | None = None,
) -> tuple[Tensor, Tensor]:
    """Call `descend` with what each part of a batch adds to the loss; return the loss and the rows' losses.

    A row's weight may depend on any loss of the batch. So with `weigh` all parts are first computed without
    gradients, with the random numbers that they have later. Without it the losses of rows are not kept.
    """
    if weigh is None:
        return plain_parts(objective, descend, batch, parts, axis)
    pieces = parted(batch["rows"], parts, axis)
    begun = random_state()
    with torch.no_grad():
        # the weights play no part in the losses that are looked for here
        whole = torch.cat([objective({"rows": piece, FOUND: torch.ones(())})[1] for piece in pieces], dim=axis)
    set_random_state(begun)
    total: Any = 0.0
    for piece, weights in zip(pieces, parted(weigh(whole, batch["weights"]), parts, axis), strict=True):
        loss, _ = objective({"rows": piece, FOUND: weights})
        descend(loss)
        total = total + loss.detach()
    return total, whole


def plain_parts(
    objective: PartObjective, descend: Callable[[Tensor], None], batch: Any, parts: int, axis: int
) -> tuple[Tensor, Tensor]:
    total: Any = 0.0
    rows = length(batch, axis)
    for piece in parted(batch, parts, axis):
        loss = objective(piece)[0] * (length(piece, axis) / rows)
        descend(loss)
        total = total + loss.detach()
    return total, total


def parted(rows: Any, parts: int, axis: int) -> list[Any]:
    """Return a nest of rows as so many nests, or fewer where there are fewer rows."""
    count = min(parts, length(rows, axis))
    cut = map_nest(lambda leaf: list(leaf.tensor_split(count, dim=axis)), rows)
    return [map_nest_of_lists(cut, place) for place in range(count)]


def map_nest_of_lists(nest: Any, place: int) -> Any:
    """Return a nest whose leaves are lists of tensors, with each list's tensor at a place."""
    if isinstance(nest, dict):
        return {key: map_nest_of_lists(value, place) for key, value in nest.items()}
    if isinstance(nest[0], torch.Tensor):
        return nest[place]
    return [map_nest_of_lists(value, place) for value in nest]


def length(rows: Any, axis: int) -> int:
    lengths: list[int] = []
    map_nest(lambda leaf: lengths.append(leaf.shape[axis]), rows)
    return lengths[0]


def random_state() -> list[Tensor]:
    """Return torch's global random state, and that of the running GPU."""
    found = [torch.get_rng_state()]
    return [*found, torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else found


def set_random_state(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1])
