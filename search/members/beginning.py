"""How a new member begins with weights of another run, which `search.records.beginning` reads."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from shoal.search.config.stages import Begin
from shoal.search.errors import InputError
from shoal.trainables.handover import hand_in
from shoal.trainables.network import Network
from shoal.trainables.recipes.frozen import matching
from shoal.trainables.slots import load_slots

StartArrays = dict[str, NDArray[Any]]
NOISY = ("rise.weight", "fall.weight")  # copies in these are told apart by noise


class Beginning(NamedTuple):
    """Weights, slots by kind and weight, and the place in the rows; the last two may be left out."""

    weights: StartArrays
    slots: dict[str, StartArrays]
    batches: Any | None
    origin: dict[str, Any]  # the lineage tells this


def begin_member(member: Any, begun: Beginning | None, given: Begin) -> None:
    """Give a new member the weights; what it draws anew and its random numbers are its own.

    One that goes on from a checkpoint has begun before: what is frozen is frozen in it too.
    """
    if not isinstance(member, Network):
        raise InputError(f"begin: needs members that are a Network, got {type(member).__name__}.")
    if begun is None:
        freeze(member, given.freeze)
        return
    own = member.state()
    fresh = named_by(own["weights"], given.fresh) | others(member, own["weights"], begun.weights)
    left = others(member, begun.weights, own["weights"])
    kept = {name: value for name, value in begun.weights.items() if name not in left}
    member.load_weights(kept | {name: own["weights"][name] for name in fresh})
    if given.noise:
        add_noise(member, given.noise)
    freeze(member, given.freeze)
    names = list(member.weights())
    slots = {
        place: {kind: begun.slots[kind][name] for kind in begun.slots}
        for place, name in enumerate(names)
        if name not in fresh and all(name in values for values in begun.slots.values())
    }
    if begun.slots:
        load_slots(member.optimiser, member.recipe.optimiser, list(member.weights().items()), slots)
    if begun.batches is not None:
        hand_in(member.batches.load, begun.batches)


def others(member: Network, held: Mapping[str, Any], known: Mapping[str, Any]) -> set[str]:
    """Return the weights that are not known and that belong to an objective: the other run had another one."""
    return {name for name in held.keys() - known.keys() if name.startswith(member.of_objectives)}


def freeze(member: Network, patterns: list[str]) -> None:
    if not patterns:
        return
    try:
        member.freeze(patterns)
    except ValueError as error:
        raise InputError(f"begin.{error}") from error


def named_by(weights: Mapping[str, Any], patterns: list[str]) -> set[str]:
    try:
        return matching(set(weights), patterns, "begin.fresh:")
    except ValueError as error:
        raise InputError(str(error)) from error


def add_noise(member: Network, share: float) -> None:
    """Add normal noise to the inner layers; each member draws its own."""
    with torch.no_grad():
        for name, weight in member.weights().items():
            if name.endswith(NOISY):
                drawn = torch.randn(weight.shape, generator=member.generator).to(weight)
                weight.add_(drawn, alpha=share * float(weight.std()))
