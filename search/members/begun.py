"""What the members of a population begin with: the best member of another run, in this run's shape."""

import hashlib
import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.config.stages import Begin
from shoal.search.errors import InputError
from shoal.search.messages import Row
from shoal.search.records import directory
from shoal.search.records.last import member_of
from shoal.search.records.lineage import read_lineage
from shoal.trainables.growth import Growth, growth_between, map_slots, map_weights, mixed
from shoal.trainables.handover import hand_in
from shoal.trainables.network import Network
from shoal.trainables.settings import DecoderShape
from shoal.trainables.slots import load_slots

Arrays = dict[str, NDArray[Any]]
NOISY = ("rise.weight", "fall.weight")  # copies in these are told apart by noise
COUNT = "step"  # AdamW's count of steps, which is no array of the weight's shape


class Begun(NamedTuple):
    """Weights, slots by kind and weight, and the place in the rows; the last two may be left out."""

    weights: Arrays
    slots: dict[str, Arrays]
    batches: Any | None
    origin: dict[str, Any]  # what the lineage tells of it


def begun_with(run: Run) -> Begun:
    """Return what the members of a run begin with, from the files of the run that `begin.run` names.

    Raises InputError where that run is not finished, or its weights do not become this run's.
    """
    given = run.begin
    assert given is not None
    donor, store, row = finished("begin.run", given.run)
    state = checkpoints.load_member(store, row.round, row.member, (0, donor.shares))
    weights = directory.whole_weights(donor, store, row)
    origin = {"run": donor.name, "member": row.member, "step": row.step, "weights": digest(weights)}
    try:
        growth = growth_of(donor, run)
        found = map_weights(weights, growth, given.depth) if growth else weights
        told = growth.in_words(given.depth) if growth else "same shape"
        exact = not growth or (growth.grows and given.depth == "zero")
        if given.mix:
            other, source = mixed_in(given, donor)
            found, exact = mixed(other, found, given.share), False
            told += f", mixed with {1 - given.share:g} of {source}"
            origin["mixed"] = digest(other)
        keep = exact if given.slots is None else given.slots == "keep"
        slots = slots_of(state, weights, donor, run, growth) if keep and donor.shares == 1 else {}
    except ValueError as error:
        raise InputError(f"begin: {error}") from error
    origin["map"] = told + (f", {len(slots)} slots kept" if slots else ", fresh slots")
    return Begun(found, slots, state["batches"] if goes_on(donor, run) else None, origin)


def finished(key: str, place: str) -> tuple[Run, Store, Row]:
    """Return a finished run with its store and the last row of its best member."""
    run, store = directory.open_run(place)
    if run.kind != "population" or directory.summary(store).get("status") != "done":
        raise InputError(f"{key}: must be the directory of a finished population, got {place}.")
    return run, store, member_of(run, store, None)


def growth_of(donor: Run, run: Run) -> Growth | None:
    """Return how a decoder grows or shrinks; None where both are of one shape, or no decoders."""
    if donor.trainable != run.trainable:
        raise InputError(
            f"begin.run: must have members of {run.trainable}, but {donor.directory} has {donor.trainable}."
        )
    if run.trainable != "decoder" or donor.model.shape == run.model.shape:
        return None
    old, new = (DecoderShape(2, 8, **each.model.shape) for each in (donor, run))
    return growth_between(old, new)


def mixed_in(given: Begin, donor: Run) -> tuple[Arrays, str]:
    """Return the weights that are mixed in; the ones begun with must have come from them.

    Else half of the start could be a finished model whose cost nobody counts.
    """
    other, store, row = finished("begin.mix", given.mix)
    weights = directory.whole_weights(other, store, row)
    wanted = digest(weights)
    here = donor
    while here.begin is not None:
        came_of = read_lineage(Store(here.directory))[0].origin
        if came_of and json.loads(came_of)["weights"] == wanted:
            return weights, other.name
        here, _ = directory.open_run(here.begin.run)
    raise InputError(
        f"begin.mix: must be the run that {donor.name} began with, directly or through others, and its weights "
        f"unchanged since, got {given.mix}."
    )


def slots_of(
    state: Mapping[str, Any], weights: Arrays, donor: Run, run: Run, growth: Growth | None
) -> dict[str, Arrays]:
    """Return kind -> weight's name -> slots in this run's shape; none where the optimiser is another."""
    if donor.training.optimiser != run.training.optimiser:
        return {}
    names = sorted(weights, key=lambda name: weights[name].ndim < 2)  # the order in `Network.weights`
    found: dict[str, Arrays] = {}
    for place, slots in state["optimiser"].items():
        for kind, value in slots.items():
            found.setdefault(kind, {})[names[int(place)]] = np.asarray(value)
    if growth is None:
        return found
    counts = found.pop(COUNT, {})
    mapped = {kind: map_slots(values, growth, kind) for kind, values in found.items()}
    if counts and mapped:
        count = next(iter(counts.values()))
        mapped[COUNT] = dict.fromkeys(next(iter(mapped.values())), count)
    return mapped


def goes_on(donor: Run, run: Run) -> bool:
    """Say whether members go on in the donor's rows: the same ones, read in the same way."""
    alike = donor.data == run.data and donor.training.batch == run.training.batch
    plain = all(each.mixing is None and each.sampling.rule is None for each in (donor, run))
    return run.takes_rows and alike and plain


def begin_member(member: Any, begun: Begun, given: Begin) -> None:
    """Give a new member the weights; what it draws anew and its random numbers are its own."""
    if not isinstance(member, Network):
        raise InputError(f"begin: needs members that are a Network, got {type(member).__name__}.")
    own = member.state()
    fresh = matching(own["weights"], given.fresh)
    member.load_weights(begun.weights | {name: own["weights"][name] for name in fresh})
    if given.noise:
        add_noise(member, given.noise)
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


def matching(weights: Mapping[str, Any], patterns: list[str]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        fit = {name for name in weights if fnmatchcase(name, pattern)}
        if not fit:
            raise InputError(f"begin.fresh: must name weights of the members, but none fits {pattern}.")
        found |= fit
    return found


def add_noise(member: Network, share: float) -> None:
    """Add normal noise to the inner layers; each member draws its own."""
    with torch.no_grad():
        for name, weight in member.weights().items():
            if name.endswith(NOISY):
                drawn = torch.randn(weight.shape, generator=member.generator).to(weight)
                weight.add_(drawn, alpha=share * float(weight.std()))


def digest(weights: Mapping[str, NDArray[Any]]) -> str:
    """Return a digest of weights by name."""
    found = hashlib.blake2b(digest_size=8)
    for name in sorted(weights):
        found.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    return found.hexdigest()
