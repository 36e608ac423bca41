"""How a mixing policy is run: it plans visits, the member trains them, the policy observes what they measured.

    state = begin_mixing(mixing, groups, seed)
    while left(groups, state):
        visit, state = plan(mixing, groups, state)
        ...train visit.steps steps on visit.counts, measure visit.signals...
        state = observe(mixing, groups, state, visit, measurement)

Caps on repetition, the floor, whole rows, the budget, a group that joins and a visit that is cut by a ready
point are handled here, once for all policies. The state is a plain nest of numbers, words and arrays:
it is checkpointed and copied with the weights, and goes on under other settings of the same policy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.mixers.mixer import (
    ALIGNMENT,
    VALIDATION,
    Groups,
    Measurement,
    Mixer,
    MixerState,
    Visit,
    Wish,
)
from shoal.policies.mixing import Counts, apportion, bounded, counts_within, dealt, normalise


@dataclass(frozen=True)
class BoundedMixing:
    """A policy within bounds that hold for every policy.

    `floor` is the least share of each group whenever it trains, probes excepted, and the least weight where
    losses are weighed. `epochs` caps the passes over each group. `check_bounded` refuses a run that no mixture
    could keep within it; during the run a group's share is at most its remaining rows over the rows left to
    train.
    """

    policy: Mixer
    floor: float = 0.0
    epochs: float = np.inf

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1 or not self.epochs > 0:
            raise ValueError(
                f"floor must be in [0, 1) and epochs above 0, but got {self.floor}, {self.epochs}."
            )


def check_bounded(mixing: BoundedMixing, groups: Groups) -> None:
    """Raise ValueError where the settings and the groups do not go together."""
    if mixing.floor * groups.count > 1:
        raise ValueError(
            f"floor must be at most 1/{groups.count} for {groups.count} groups, but got {mixing.floor}."
        )
    rows, allowed = groups.steps * groups.batch, _allowance(mixing, groups)
    if np.isfinite(mixing.epochs) and allowed.sum() < rows:
        raise ValueError(
            f"{mixing.epochs:g} epochs of all groups are {allowed.sum()} rows, but {groups.steps} steps of "
            f"{groups.batch} need {rows}: allow {rows / sum(groups.rows):.3g} epochs or train less."
        )
    mixing.policy.check(groups)


def begin_mixing(mixing: BoundedMixing, groups: Groups, seed: int, prior: Vector | None = None) -> MixerState:
    """Return the state of a run that has not begun."""
    check_bounded(mixing, groups)
    return {
        "step": 0,
        "seen": np.zeros(groups.count, dtype=np.int64),  # rows that were trained on
        "debt": np.zeros(groups.count),  # rows that rounding still owes each group
        "evaluations": 0,
        "probe_steps": 0,
        "seed": seed,
        "part": {},  # a visit that was cut, and how much of it is done; empty if none was
        "policy": mixing.policy.start(groups, prior, seed),
    }


def left(groups: Groups, state: MixerState) -> int:
    """Return how many steps the budget still has: probes count as steps, evaluations at their price."""
    spent = state["step"] + int(np.ceil(state["evaluations"] * groups.evaluation_steps - 1e-9))
    return max(groups.steps - spent, 0)


def plan(
    mixing: BoundedMixing, groups: Groups, state: MixerState, limit: int | None = None
) -> tuple[Visit, MixerState]:
    """Return what to do next, at most `limit` steps of it, and the state that waits for its measurement.

    A visit longer than `limit` (at least 1) is cut: what is measured after it is asked of its last part. The
    same state gives the same visit, so a run may be resumed from the state of before or of after.
    """
    part = state["part"] or _part(mixing, groups, state)
    done, steps = part["done"], part["steps"]
    upto = steps if limit is None else min(steps, done + limit)
    signals = set(part["signals"]) - ({VALIDATION} if upto < steps else set())
    table = dealt(part["counts"], steps)[done:upto]
    return Visit(upto - done, table, frozenset(signals), part["name"], _weights(part)), state | {"part": part}


def observe(
    mixing: BoundedMixing, groups: Groups, state: MixerState, visit: Visit, measurement: Measurement
) -> MixerState:
    """Return the state after the visit that `plan` gave with this state."""
    _check_measurement(groups, visit, measurement)
    counts = visit.counts if measurement.counts is None else np.asarray(measurement.counts, dtype=np.int64)
    part = state["part"]
    part = part | {
        "done": part["done"] + visit.steps,
        "heard": [*part["heard"], _heard(visit, measurement, counts)],
    }
    after = state | {
        "step": state["step"] + visit.steps,
        "seen": state["seen"] + counts.sum(axis=0),
        "evaluations": state["evaluations"] + (VALIDATION in visit.signals),
        "probe_steps": state["probe_steps"] + visit.steps * part["probe"],
        "part": part,
    }
    if part["done"] < part["steps"]:
        return after
    signals, probe = frozenset(part["signals"]), bool(part["probe"])
    wish = Wish(part["steps"], part["proportions"], signals, part["name"], probe, _weights(part))
    learnt = mixing.policy.learn(groups, state["policy"], wish, _together(part["heard"]))
    return after | {"policy": learnt, "part": {}, "debt": part["debt"]}


def reweighed(
    mixing: BoundedMixing, groups: Groups, state: MixerState, measurement: Measurement
) -> tuple[Vector, MixerState]:
    """Return the weights that a step of the visit is trained with, and the state that waits for the next step.

    `measurement` is what was measured within the step, before its weights were needed. When the visit is whole,
    `observe` takes the same way again.
    """
    policy: Any = mixing.policy  # only policies that measure within a step have `follow`
    after = policy.follow(groups, state["part"].get("policy", state["policy"]), measurement)
    return _weighed(mixing, after["weights"]), state | {"part": state["part"] | {"policy": after}}


def current_mixture(mixing: BoundedMixing, groups: Groups, state: MixerState) -> Vector:
    """Return the proportions that are trained at outside of probes, within the bounds."""
    policy = state["policy"]
    if "proportions" in policy:
        return _inside(mixing, groups, state, np.asarray(policy["proportions"], dtype=np.float64))
    return _now(mixing, groups, state)[0]


def counted(mixing: BoundedMixing, groups: Groups, state: MixerState) -> Vector:
    """Return the groups' shares of the training loss: weights where losses are weighed, else the mixture."""
    weights = _now(mixing, groups, state)[1]
    return current_mixture(mixing, groups, state) if weights is None else weights


def join(
    mixing: BoundedMixing, state: MixerState, before: Groups, after: Groups, share: float | None = None
) -> MixerState:
    """Return the state with more groups, which stand after the old ones; the policy begins again from there.

    A policy that learns begins at the old groups' relative proportions and `share` for each new one, if none
    is said an equal one of all; one that is settled by the groups follows its rule. `mixing` must suit the new
    groups. A cut visit is given up: its rows stay counted.
    """
    more = after.count - before.count
    if more < 1 or after.names[: before.count] != before.names:
        raise ValueError(f"groups must be added after {before.names}, but got {after.names}.")
    share = 1 / after.count if share is None else share
    if not 0 < share * more < 1:
        raise ValueError(
            f"the shares of the {more} new groups must be above 0 and sum below 1, but got {share}."
        )
    check_bounded(mixing, after)
    prior = np.append((1 - more * share) * current_mixture(mixing, before, state), np.full(more, share))
    return state | {
        "seen": np.append(state["seen"], np.zeros(more, dtype=np.int64)),
        "debt": np.append(state["debt"], np.zeros(more)),
        "part": {},
        "policy": mixing.policy.start(after, prior, state["seed"] + state["step"]),
    }


def _now(mixing: BoundedMixing, groups: Groups, state: MixerState) -> tuple[Vector, Vector | None]:
    """Return the proportions and the weights of the visit that is on its way or comes next.

    After the last step they are those of one step more.
    """
    if state["part"]:
        return np.array(state["part"]["proportions"]), _weights(state["part"])
    wish = mixing.policy.wish(groups, state["policy"], state["step"], max(left(groups, state), 1))
    wanted = wish.proportions if wish.probe else _inside(mixing, groups, state, wish.proportions)
    return wanted, None if wish.weights is None else _weighed(mixing, wish.weights)


def _weighed(mixing: BoundedMixing, given: Vector) -> Vector:
    """Return the weights of the groups' losses, which sum to 1, above the floor."""
    weights = normalise(given)
    return bounded(weights, mixing.floor, 1.0) if mixing.floor else weights


def _part(mixing: BoundedMixing, groups: Groups, state: MixerState) -> MixerState:
    """Return the policy's next wish as whole rows within the bounds, as it is kept if it is cut."""
    steps_left = left(groups, state)
    wish = mixing.policy.wish(groups, state["policy"], state["step"], steps_left)
    steps = min(wish.steps, steps_left)
    assert steps or wish.signals, "a wish without steps must measure"
    wanted = wish.proportions if wish.probe else _inside(mixing, groups, state, wish.proportions)
    debt = np.zeros(groups.count) if wish.probe else state["debt"]
    counts, owed = apportion(wanted, steps * groups.batch, debt)
    weights = np.zeros(0) if wish.weights is None else _weighed(mixing, wish.weights)
    if np.isfinite(mixing.epochs):
        counts = counts_within(counts, _allowance(mixing, groups) - state["seen"])
    return {
        "steps": steps,
        "done": 0,
        "counts": counts,
        "proportions": wanted,
        "signals": sorted(wish.signals),
        "name": wish.name,
        "probe": int(wish.probe),
        "weights": weights,
        "debt": state["debt"] if wish.probe else owed,
        "heard": [],
    }


def _inside(mixing: BoundedMixing, groups: Groups, state: MixerState, wanted: Vector) -> Vector:
    if not np.isfinite(mixing.epochs):  # some policies come here at every step
        return bounded(wanted, mixing.floor, 1.0) if mixing.floor else wanted
    rows = max(left(groups, state), 1) * groups.batch
    most = np.minimum((_allowance(mixing, groups) - state["seen"]) / rows, 1.0)
    return bounded(wanted, np.minimum(mixing.floor, most), most)


def _allowance(mixing: BoundedMixing, groups: Groups) -> Counts:
    """Return the rows of each group that may be trained on in the whole run."""
    if not np.isfinite(mixing.epochs):
        return np.full(groups.count, np.iinfo(np.int64).max // groups.count)
    most = 2.0**50  # more than any run trains on; the sum over groups is still a whole number
    allowed = min(mixing.epochs, most) * np.array(groups.rows) + 1e-9
    return np.floor(np.minimum(allowed, most)).astype(np.int64)


def _weights(part: MixerState) -> Vector | None:
    return part["weights"] if len(part["weights"]) else None


def _heard(visit: Visit, measurement: Measurement, counts: Counts) -> MixerState:
    """Return the measurements that were asked for, as they are kept until the visit is whole."""
    asked = visit.signals | ({"norms"} if ALIGNMENT in visit.signals else set())
    values = {name: getattr(measurement, name) for name in sorted(asked)}
    return {"counts": counts} | {name: value for name, value in values.items() if value is not None}


def _together(heard: list[MixerState]) -> Measurement:
    """Return the parts of a cut visit as one measurement: steps one after another, validation from the last."""
    joined: dict[str, NDArray[Any]] = {
        name: np.concatenate([np.asarray(part[name]) for part in heard])
        for name in ("counts", "training", "excess", "alignment", "norms")
        if all(name in part for part in heard)
    }
    validation = heard[-1].get("validation")
    return Measurement(**joined, validation=None if validation is None else tuple(map(np.asarray, validation)))


def _check_measurement(groups: Groups, visit: Visit, measurement: Measurement) -> None:
    for signal in visit.signals:
        if getattr(measurement, signal) is None:
            raise ValueError(f"the visit {visit.name} asked for {signal}, but its measurement has none.")
    if measurement.validation is None:
        return
    losses_by_target = measurement.validation
    if len(losses_by_target) != len(groups.targets):
        raise ValueError(
            f"validation losses of {len(groups.targets)} targets must come, but got {len(losses_by_target)}."
        )
    empty = [name for name, losses in zip(groups.targets, losses_by_target, strict=True) if not len(losses)]
    if empty:
        raise ValueError(f"each target must have a validation sequence, but {empty} have none.")
