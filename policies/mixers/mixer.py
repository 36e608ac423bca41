"""What a mixing policy is: settings and pure functions of a state; and the types that it takes and returns."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from shoal.policies.arrays import Vector
from shoal.policies.mixing import Counts, normalise

MixerState = dict[str, Any]

TRAINING = "training"  # mean training loss of each group at each step
VALIDATION = "validation"  # loss of each fixed sequence of each target, once, after the visit
EXCESS = "excess"  # mean over tokens of the loss above a reference model's, each clipped at 0, at each step
ALIGNMENT = "alignment"  # inner products of gradients at each step
WITHIN = frozenset({EXCESS, ALIGNMENT})  # these need the graph of one member's step: stacked members share one


@dataclass(frozen=True)
class Groups:
    """What a policy has to know of the run. Rows are sequences; a step trains `batch` of them."""

    names: tuple[str, ...]
    rows: tuple[int, ...]  # distinct training rows of each group
    batch: int
    steps: int  # in the whole run, probes included
    targets: tuple[str, ...] = ()  # groups that are validated; left out: the training groups
    evaluation_steps: float = 0.0  # one validation pass takes so many training steps off the budget

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.rows) or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"groups must have different names and rows each, but got {self.names}, {self.rows}."
            )
        if min(self.rows) < 1:
            raise ValueError(f"each group must have a training row, but {self.names} have {self.rows}.")
        if self.batch < 1 or self.steps < 1 or not self.evaluation_steps >= 0:
            raise ValueError(
                f"batch and steps must be at least 1 and evaluation_steps at least 0, but got "
                f"{self.batch}, {self.steps}, {self.evaluation_steps}."
            )
        if not self.targets:
            object.__setattr__(self, "targets", self.names)

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def shares(self) -> Vector:
        return normalise(self.rows)


class Wish(NamedTuple):
    """What a policy wants next: so many steps at these proportions. 0 steps only measure."""

    steps: int
    proportions: Vector  # (groups,)
    signals: frozenset[str] = frozenset()
    name: str = "train"
    probe: bool = False  # a probe has no floor, and neither pays nor leaves debts of rounding
    weights: Vector | None = None  # (groups,) weight of each group's mean loss in the training loss


class Visit(NamedTuple):
    """What a member is to do: train each step on these rows, then measure the signals."""

    steps: int
    counts: Counts  # (steps, groups), each step's sum is the batch
    signals: frozenset[str]
    name: str
    weights: Vector | None  # train on the sum over groups of weight * mean loss; None: on the mean over rows


class Measurement(NamedTuple):
    """What came of a visit; only the signals that it asked for are needed."""

    counts: Counts | None = None  # (steps, groups) rows that were trained on; None: as planned
    training: Vector | None = None  # (steps, groups) mean losses; NaN where a group had no row
    validation: tuple[Vector, ...] | None = None  # for each target, the losses of its fixed sequences
    excess: Vector | None = None  # (steps, groups); NaN where a group had no row
    alignment: Vector | None = None  # (steps, groups, targets) inner products of gradients
    norms: Vector | None = None  # (steps, groups) norms of the groups' gradients


class Mixer(Protocol):
    """A mixing policy: settings only. Methods are pure; states are never changed in place.

    A state that has a mixture of its own keeps it under `proportions`. A policy whose signals are measured
    within a step also has `follow(groups, state, measurement)`: the state after one step's measurements, with
    the `weights` that this very step is trained with.
    """

    signals: ClassVar[frozenset[str]]  # all that it may ask for

    def check(self, groups: Groups) -> None:
        """Raise ValueError where it cannot serve these groups, or would never act in a run of these steps.

        Called before anything trains.
        """

    def start(self, groups: Groups, prior: Vector | None, seed: int) -> MixerState:
        """Return the state to begin with; what learns begins at the `prior` if there is one."""

    def wish(self, groups: Groups, state: MixerState, step: int, left: int) -> Wish:
        """Return what to do next; at most `left` steps will be done of it."""

    def learn(self, groups: Groups, state: MixerState, wish: Wish, measurement: Measurement) -> MixerState:
        """Return the state after a wish was carried out; `measurement.counts` is always there."""
