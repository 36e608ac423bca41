"""One model out of several that were trained from the same start: the weighted average of their weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def merge(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted average of state dicts, as an approximation of training on the weighted data.

    The models must come from one start (Na et al., 2024); an average of unrelated models is useless. Sums are
    taken in at least single precision and stored in the tensors' own type. A tensor that is not floating
    point, such as a counter, is taken from the first state. Raises ValueError unless the weights are at least
    0 and sum to 1, and all states have the same names and shapes.
    """
    if len(states) != len(weights) or not states:
        raise ValueError(f"there must be a weight for each state, but got {len(weights)} for {len(states)}.")
    if not min(weights) >= 0 or abs(sum(weights) - 1) > 1e-6:
        raise ValueError(f"weights must be at least 0 and sum to 1, but got {list(weights)}.")
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError("all states must have the same names and shapes: models of one kind and one start.")
    return {name: _average([state[name] for state in states], weights) for name in states[0]}


def _average(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        return first.clone()
    total = torch.zeros_like(first, dtype=torch.promote_types(first.dtype, torch.float32))
    for tensor, weight in zip(tensors, weights, strict=True):
        total += weight * tensor.to(total.dtype)
    return total.to(first.dtype)
