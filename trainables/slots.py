"""An optimiser's slots, copied from one member's into another's."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.arrays import check_source, copy_into, tensor_like
from shoal.trainables.optimise import OPTIMISERS
from shoal.trainables.span import local, shared_like

NamedWeight = tuple[str, nn.Parameter]


def load_slots(
    optimiser: torch.optim.Optimizer, named: str, weights: Sequence[NamedWeight], slots: Mapping[Any, Any]
) -> None:
    """Replace the slots of an optimiser, such as adamw, by copies of others: weight's place -> name -> values.

    Raises ValueError if they are of another optimiser or of other weights.
    """
    kind = OPTIMISERS[named]
    names = {*kind.slots, "step"} if kind.counts else set(kind.slots)
    known = dict(optimiser.state)  # new slots take the old ones' memory
    optimiser.state.clear()
    for place, values in slots.items():
        if int(place) >= len(weights) or not values.keys() <= names:
            raise ValueError(
                f"the copied optimiser must be {named} of {len(weights)} weights, "
                f"but has {', '.join(values)} of weight {place}."
            )
        weight = weights[int(place)]
        before = known.get(weight[1], {})
        optimiser.state[weight[1]] = {
            name: slot(weight, name, value, before.get(name)) for name, value in values.items()
        }


def slot(named: NamedWeight, name: str, value: Any, before: Tensor | None) -> Tensor:
    """Return a copied slot in the form in which the optimiser keeps it for a weight, where `before` was one."""
    if name == "step":
        # AdamW keeps its count of steps on the CPU
        return tensor_like(torch.zeros(()), value).to("cpu", copy=True)
    check_source(local(named[1]), value, f"{name} of {named[0]}")
    if before is not None and local(before).shape == tuple(value.shape):
        copy_into(local(before), value, f"{name} of {named[0]}")
        return before
    # copied, because several members may load the same slots
    given = tensor_like(local(named[1]), value)
    # laid out in memory as the weight is: the fused step goes through both side by side
    copied = torch.empty_like(local(named[1]), dtype=given.dtype).copy_(given)
    return shared_like(named[1], copied)
