"""What the members of a population begin with: the best member of another run, in this run's shape."""

import hashlib
import json
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.config.stages import Begin
from shoal.search.errors import InputError
from shoal.search.exported import read_exported
from shoal.search.members.beginning import Beginning, StartArrays
from shoal.search.messages import Row
from shoal.search.records import directory
from shoal.search.records.last import member_of
from shoal.search.records.lineage import read_lineage
from shoal.trainables.growth import Growth, grow_slots, grow_weights, growth_between, mixed
from shoal.trainables.recipes.densities import without_masks
from shoal.trainables.settings import DecoderShape

COUNT = "step"  # AdamW's count of steps, which is no array of the weight's shape


def begun_with(run: Run) -> Beginning | None:
    """Return what the members of a run begin with, from the files of the run that `begin.run` names, if any.

    Raises InputError where that run is not finished, or its weights do not become this run's.
    """
    given = run.begin
    if given is None:
        return None
    if not directory.holds_run(given.run) and Store(given.run).exists("config.json"):
        return begun_with_export(run, given)
    donor, store, row = finished_run("begin.run", given.run)
    state = checkpoints.load_member(store, row.round, row.member, (0, donor.shares))
    weights = directory.whole_weights(donor, store, row)
    origin = {"run": donor.name, "member": row.member, "step": row.step, "weights": digest(weights)}
    try:
        growth = growth_of(donor, run)
        # grown layers are masked anew: a copied row must not have the mask of its original
        found = grow_weights(without_masks(weights), growth, given.depth) if growth else weights
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
    return Beginning(found, slots, state["batches"] if keeps_place(donor, run) else None, origin)


def begun_with_export(run: Run, given: Begin) -> Beginning:
    """Return the weights that a run has exported: slots and place in the rows stay behind.

    Raises InputError if they are of another class, other tokens, or a shape that does not become this one.
    """
    told, place = read_exported("begin.run", given.run), given.run
    if told.get("trainable") != run.trainable:
        raise InputError(f"begin.run: must be of {run.trainable}, but {place} is of {told.get('trainable')}.")
    if run.reads_tokens and os.path.basename(str(told["tokenizer"])) != os.path.basename(run.data.tokenizer):
        raise InputError(
            f"begin.run: must read the tokens of data.tokenizer ({run.data.tokenizer}), but {place} reads "
            f"those of {told['tokenizer']}."
        )
    if given.mix or given.slots == "keep":
        key = "mix" if given.mix else "slots"
        raise InputError(f"begin.{key}: an export holds weights alone; give the directory of its run instead.")
    weights: StartArrays = load(Store(place).read("model.safetensors"))
    origin = {"run": told.get("run"), "member": told.get("member"), "step": told.get("step")}
    # an older export says nothing of experts: it has one
    had = {name: getattr(DecoderShape, name) for name in ("experts", "gate", "active_experts")}
    had |= told["shape"] if run.trainable == "decoder" else {}
    shape = {name: had[name] for name in run.model.shape} if run.trainable == "decoder" else {}
    try:
        growth = growth_from(shape, run)
        found = grow_weights(weights, growth, given.depth) if growth else weights
    except ValueError as error:
        raise InputError(f"begin: {error}") from error
    origin |= {"weights": digest(weights), "map": growth.in_words(given.depth) if growth else "same shape"}
    return Beginning(found, {}, None, origin)


def finished_run(key: str, place: str) -> tuple[Run, Store, Row]:
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
    return growth_from(donor.model.shape, run)


def growth_from(shape: Mapping[str, Any], run: Run) -> Growth | None:
    """Return how a decoder of this shape becomes one of the run's; None where nothing grows or shrinks."""
    if run.trainable != "decoder" or shape == run.model.shape:
        return None
    growth = growth_between(DecoderShape(2, 8, **shape), DecoderShape(2, 8, **run.model.shape))
    return growth if growth.width * growth.depth > 1 else None


def mixed_in(given: Begin, donor: Run) -> tuple[StartArrays, str]:
    """Return the weights that are mixed in; the ones begun with must have come from them.

    Else half of the start could be a finished model whose cost nobody counts.
    """
    other, store, row = finished_run("begin.mix", given.mix)
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
    state: Mapping[str, Any], weights: StartArrays, donor: Run, run: Run, growth: Growth | None
) -> dict[str, StartArrays]:
    """Return kind -> weight's name -> slots in this run's shape; none where the optimiser is another."""
    if donor.training.optimiser != run.training.optimiser:
        return {}
    frozen = donor.begin.freeze if donor.begin else donor.model.freeze
    held = without_masks(weights).keys() - set(state.get("buffers", ()))
    trained = [name for name in weights if name in held and not any(fnmatchcase(name, each) for each in frozen)]
    names = sorted(trained, key=lambda name: weights[name].ndim < 2)  # the order in `Network.weights`
    found: dict[str, StartArrays] = {}
    for place, slots in state["optimiser"].items():
        for kind, value in slots.items():
            found.setdefault(kind, {})[names[int(place)]] = np.asarray(value)
    if growth is None:
        return found
    counts = found.pop(COUNT, {})
    mapped = {kind: grow_slots(values, growth, kind) for kind, values in found.items()}
    if counts and mapped:
        count = next(iter(counts.values()))
        mapped[COUNT] = dict.fromkeys(next(iter(mapped.values())), count)
    return mapped


def keeps_place(donor: Run, run: Run) -> bool:
    """Say whether members go on in the donor's rows: the same ones, read in the same way."""
    alike = donor.data == run.data and donor.training.batch == run.training.batch
    plain = all(each.mixing is None and each.sampling.rule is None for each in (donor, run))
    return run.takes_rows and alike and plain


def digest(weights: Mapping[str, NDArray[Any]]) -> str:
    """Return a digest of weights by name."""
    found = hashlib.blake2b(digest_size=8)
    for name in sorted(weights):
        found.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    return found.hexdigest()
