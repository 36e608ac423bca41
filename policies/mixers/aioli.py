"""Aioli: probe what each group does to the losses while training, and move towards what helps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.mixers.effects import (
    Effects,
    by_chance,
    learn_effects,
    pull_scale,
    pull_spread,
    smoothed_one_hot,
)
from shoal.policies.mixers.mixer import VALIDATION, Groups, Measurement, MixerState, Wish
from shoal.policies.mixers.plain import one_each, sums_to_one
from shoal.policies.mixing import exponentiated

UPDATES = ("cumulative", "from_uniform_ema")
SCALES = ("total", "median", "column", "none")
RESTARTS = ("uniform", "prior")
PERPLEXITY = "perplexity"


@dataclass(frozen=True)
class Aioli:
    """Exponentiated gradient on measured effects (Chen et al., 2024).

    A round of `every` steps begins with `sweeps` shuffled sweeps of one probe a group, which take about
    `probe_share` of it; the rest is trained at the new proportions. Probes are real training steps.
    `cumulative` is the paper's update, p * exp(rate * pull); `from_uniform_ema` that of its published
    runs: from the beginning's proportions each round, by effects averaged over rounds with `memory`. The
    two take `rate` differently: the second cannot leave a neighbourhood of the beginning.
    The proportions stay unless the pulls differ by more than chance explains, with the certainty of `noise`
    standard errors (2: in 5 rounds of 100 it moves by chance); 0 always moves. What chance does by the rows
    that probes happened to train on shows between sweeps alone, so `noise` needs two of them: of half as many
    steps a probe, they cost a round no step, but twice as many validation passes. The first `prior_steps` steps
    are trained at the `prior` (the paper's restricted setting), without one at equal shares: probes while
    the rate warms up measure how fast losses fall then. After that it begins from there or, as the published
    code, from uniform. `objective` weighs the targets, and only the weights' ratios count; `perplexity` by
    exp(loss), so that what falls is the mean perplexity over targets and not the mean loss.
    Targets that are not trained on make the out-of-domain variant.
    """

    rate: float = 0.2  # how far a round moves the mixture, eta
    every: int = 250
    probe_share: float = 0.13  # share of a round that probes take, delta
    sweeps: int = 4  # sweeps of probes in a round, k
    smoothing: float = 0.5  # a probe trains so much of all groups alike, epsilon
    # from_uniform_ema begins each round anew, cumulative goes on from where it is
    update: str = "from_uniform_ema"
    memory: float = 0.1  # the weight of earlier rounds
    scale: str = "median"  # effects are divided by it, so that `rate` means the same whatever the losses
    noise: float = 2.0
    prior: tuple[float, ...] = ()
    prior_steps: int = 0
    restart: str = "prior"  # where the mixture begins after the first steps: at uniform, or at the prior
    objective: tuple[float, ...] | str = ()
    signals: ClassVar[frozenset[str]] = frozenset({VALIDATION})

    def __post_init__(self) -> None:
        for name, low, high in (("probe_share", 0, 1), ("smoothing", 0, 1), ("memory", 0, 1)):
            if not low <= getattr(self, name) < high:
                raise ValueError(f"{name} must be in [{low}, {high}), but got {getattr(self, name)}.")
        for name in ("rate", "noise", "prior_steps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, but got {getattr(self, name)}.")
        if self.every < 2 or self.sweeps < 1:
            raise ValueError(
                f"every must be at least 2 and sweeps at least 1, but got {self.every}, {self.sweeps}."
            )
        if isinstance(self.objective, str) and self.objective != PERPLEXITY:
            raise ValueError(f"objective must be weights or {PERPLEXITY}, but got {self.objective!r}.")
        weights = () if isinstance(self.objective, str) else self.objective
        if weights and not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
            raise ValueError(f"objective must be at least 0 and not all 0, but got {list(weights)}.")
        for name, allowed in (("update", UPDATES), ("scale", SCALES), ("restart", RESTARTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, but got {getattr(self, name)!r}.")
        if self.prior:
            sums_to_one(self.prior)

    def probe_steps(self, groups: Groups) -> int:
        """Return the steps of one probe (h)."""
        return max(1, round(self.probe_share * self.every / (groups.count * self.sweeps)))

    def check(self, groups: Groups) -> None:
        if groups.count > 1:
            self._check_probes(groups)
        if self.prior:
            one_each(self.prior, groups)
        if isinstance(self.objective, str):
            return
        if self.objective and len(self.objective) != len(groups.targets):
            raise ValueError(
                f"objective must weigh each target, {groups.targets}, but got {len(self.objective)} weights."
            )

    def _check_probes(self, groups: Groups) -> None:
        probes = groups.count * self.sweeps
        probing = self.probe_steps(groups) * probes
        if probing >= self.every:
            raise ValueError(
                f"the probes of a round must be shorter than the round: {self.sweeps} sweeps of {groups.count} "
                f"probes of {self.probe_steps(groups)} steps are {probing}, but every is {self.every}."
            )
        if self.noise and self.sweeps < 2:
            raise ValueError(
                f"sweeps must be at least 2 with noise {self.noise:g}, since what chance does by the rows of a "
                f"probe shows between them alone, but got {self.sweeps}: give 2, which cost no step more, or "
                f"move on any difference with noise 0."
            )
        evaluating = math.ceil((probes + 1) * groups.evaluation_steps)
        if self.prior_steps + probing + evaluating >= groups.steps:
            raise ValueError(
                f"a round of probes must leave steps to train on what they say, but prior_steps "
                f"{self.prior_steps}, {probing} steps of probes and {evaluating} of their evaluation leave "
                f"none of {groups.steps}: probe less or train longer."
            )

    def start(self, groups: Groups, prior: Vector | None, seed: int) -> MixerState:
        self.check(groups)
        uniform = np.full(groups.count, 1 / groups.count)
        given = one_each(self.prior, groups) if self.prior else uniform
        base = prior if prior is not None else given if self.restart == "prior" else uniform
        shape = len(groups.targets), groups.count
        state: MixerState = {
            "seed": seed,
            "round": 0,
            "base": base,
            "proportions": base,
            "step": 0,  # steps since the policy began
            "ends": self.prior_steps if prior is None else 0,  # the step at which the round ends
            "order": [],  # groups that are still to be probed in this round, in this order
            "steps": 0,  # length of each probe
            "sweeps": 0,
            "previous": [],  # the targets' losses by sequence, before the next probe
            "mixtures": [],
            "drops": [],
            "effects": np.zeros(shape),
            "errors": np.full(shape, np.nan),
            "average": np.zeros(groups.count),  # the pull over rounds, divided by its scale
            "average_errors": np.zeros(groups.count),
            "freedom": np.inf,  # degrees of freedom of `average_errors`
            "rounds": 0,  # how many rounds the average is over
            "spread": 0.0,  # root mean square of the pulls, in standard errors
            "chance": 1.0,  # probability of such a spread if all groups had the same effect
            "decision": "no round is over",
        }
        return state if state["ends"] else self._next_round(groups, state)

    def wish(self, groups: Groups, state: MixerState, step: int, left: int) -> Wish:
        if not state["round"]:
            steps = min(state["ends"] - state["step"], left)
            given = one_each(self.prior, groups) if self.prior else state["base"]
            return Wish(steps, given, self.signals, "prior")
        # a probe pays only if training on what it says follows
        if state["order"] and left > len(state["order"]) * state["steps"]:
            if not state["previous"]:
                return Wish(0, state["proportions"], self.signals, "measure")
            group = state["order"][0]
            mixture = smoothed_one_hot(groups.count, self.smoothing)[:, group]
            return Wish(state["steps"], mixture, self.signals, f"probe {group}", probe=True)
        steps = min(max(state["ends"] - state["step"], 1), left)
        return Wish(steps, state["proportions"], self.signals if steps < left else frozenset())

    def learn(self, groups: Groups, state: MixerState, wish: Wish, measurement: Measurement) -> MixerState:
        assert measurement.counts is not None
        losses = [] if measurement.validation is None else list(measurement.validation)
        after = state | {"step": state["step"] + len(measurement.counts), "previous": losses}
        if wish.probe:
            rows = measurement.counts.sum(axis=0)
            with np.errstate(invalid="ignore"):  # inf - inf is NaN, from which nothing is learnt
                fell = [before - now for before, now in zip(state["previous"], losses, strict=True)]
            after |= {
                "order": state["order"][1:],
                "mixtures": [*state["mixtures"], rows / rows.sum()],
                "drops": [*state["drops"], fell],
            }
            return after if after["order"] else self._moved(groups, after)
        return self._next_round(groups, after) if after["step"] >= after["ends"] else after

    def _next_round(self, groups: Groups, state: MixerState) -> MixerState:
        rng = np.random.default_rng([state["seed"], state["round"]])
        probed = groups.count > 1
        order = [rng.permutation(groups.count).tolist() for _ in range(self.sweeps if probed else 0)]
        return state | {
            "round": state["round"] + 1,
            "ends": state["step"] + self.every,
            "order": [group for sweep in order for group in sweep],
            "steps": self.probe_steps(groups),
            "sweeps": self.sweeps,
            "mixtures": [],
            "drops": [],
        }

    def _moved(self, groups: Groups, state: MixerState) -> MixerState:
        """Return the state with what the round's probes say, moved if it is more than noise."""
        objective = self._weights([float(np.mean(losses)) for losses in state["previous"]])
        drops = [tuple(fell) for fell in state["drops"]]
        mixtures = np.array(state["mixtures"])
        effects = learn_effects(mixtures, drops, state["steps"], objective, state["sweeps"])
        spent: MixerState = {"mixtures": [], "drops": []}
        if effects is None:
            return state | spent | {"decision": "kept: a loss is not finite, or the probes were alike"}
        measured = {"effects": effects.matrix, "errors": effects.errors}
        return (
            state | spent | measured | self._decided(state, effects, pull_scale(effects, self.scale, objective))
        )

    def _weights(self, losses: Sequence[float]) -> Vector:
        """Return the weight of each target's loss, (targets,)."""
        known = np.array(losses)
        if not isinstance(self.objective, str):
            weights = np.array(self.objective or np.ones(len(known)), dtype=np.float64)
        else:
            weights = np.exp(known - known.max()) if np.isfinite(known).all() else np.ones(len(known))
        # over their mean, so that a rate means the same as with equal weights
        return np.asarray(weights / weights.mean())

    def _decided(self, state: MixerState, effects: Effects, scale: float) -> dict[str, Any]:
        if scale <= np.abs(effects.pull).max() * 1e-300:
            return {"decision": "kept: all groups have the same effect", "spread": 0.0}
        pull, errors = effects.pull / scale, effects.pull_errors / scale
        if self.noise and np.isnan(errors).any():
            raise ValueError(
                "errors of effects need two validation sequences of each target and two sweeps; "
                "give them, or move on any difference with noise 0."
            )
        # the first round has no earlier ones to be averaged with
        keep = self.memory if state["rounds"] else 0.0
        average = (1 - keep) * pull + keep * state["average"]
        new, old = (1 - keep) * errors, keep * state["average_errors"]
        average_errors = np.hypot(new, old)
        freedom = together(new, effects.freedom, old, state["freedom"])
        known = {"average": average, "average_errors": average_errors, "freedom": freedom}
        known |= {"rounds": state["rounds"] + 1}
        if self.update == "cumulative":
            base, by, size, freedom = state["proportions"], pull, pull_spread(pull, errors), effects.freedom
        else:
            base, by, size = state["base"], average, pull_spread(average, average_errors)
        chance = by_chance(size, len(pull), freedom) if self.noise else 0.0
        known |= {"spread": size, "chance": chance}
        if chance > math.erfc(self.noise / math.sqrt(2)):
            return known | {"decision": "kept: within the noise"}
        return known | {"decision": "moved", "proportions": exponentiated(base, by, self.rate)}


def together(new: Vector, of_new: float, old: Vector, of_old: float) -> float:
    """Return the degrees of freedom of two independent errors added in squares (Satterthwaite, 1946)."""
    first, second = float((new**2).mean()), float((old**2).mean())
    total = first + second
    if not total > 0:
        return math.inf
    doubt = (first / total) ** 2 / of_new + (second / total) ** 2 / of_old
    return 1 / doubt if doubt > 0 else math.inf
