"""What passes between workers and the driver: a member's row, a worker's message, and the answers to them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from shoal.policies.population import Order, PopulationState

NO_GROUPS: Mapping[str, float] = {}


class GroupMixture(NamedTuple):
    """One group in a member's own mixture, and what the mixing policy has measured of it."""

    group: str
    proportion: float  # share of the rows outside of probes; share of the loss if the policy weighs losses
    seen: int  # rows of the group that these weights have trained on
    rows: int  # all rows of the group
    effects: Sequence[float]  # one for each validated group, in nats a step for a share of 1
    errors: Sequence[float]  # standard errors of the effects


class MixtureAccount(NamedTuple):
    """What a run records of a member's own mixture."""

    groups: Sequence[GroupMixture]
    decision: str
    evaluations: int
    probe_steps: int
    extra_steps: int  # steps of another run that the policy needs


class Reading(NamedTuple):
    """How far a member has read its groups."""

    epochs: Mapping[str, float] = NO_GROUPS  # group -> how often it was gone through
    skipped: Mapping[str, float] = NO_GROUPS  # group -> rows that a window has left behind unread
    kept: float | None = None  # share of the rows that a sampling policy keeps


class Row(NamedTuple):
    """What one member reports at one ready point; the table of metrics holds these.

    The last four fields are the driver's. A member that has failed has a score of NaN.
    """

    member: int
    round: int = 0
    step: int = 0  # steps that these weights have trained; 0 until the worker has counted them
    brood: int = 0
    score: float = float("nan")  # higher is better; the last one of these weights where there is no new one
    scored: bool = True  # whether the score is of this ready point
    train_loss: float = float("nan")
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    exploit_seconds: float = 0.0  # time that copying took since the member's row before
    checkpoint_seconds: float = 0.0  # time that its checkpoint kept it from training since then
    stacked: bool = False
    cost: float | None = None  # share of what the dearest settings cost, where settings trade loss for cost
    losses: Mapping[str, float] = NO_GROUPS  # group -> validation loss
    loss_errors: Mapping[str, float] = NO_GROUPS  # group -> standard error of that loss over its rows
    measures: Mapping[str, float] = NO_GROUPS  # such as accuracy_GROUP -> the mean over held-out rows
    epochs: Mapping[str, float] = NO_GROUPS
    skipped: Mapping[str, float] = NO_GROUPS
    kept: float | None = None
    mixture: MixtureAccount | None = None
    ended: Sequence[str] = ()  # groups that the member has read to the end, where no batch is left
    error: str = ""  # trace of what the member's own code raised
    rows_a_step: int = 0  # rows of a batch, where the member's class brings its own and tells them
    rows: int = 0  # rows that these weights have trained
    tokens: int = 0
    arrival: int = 0  # how many reports had been decided before this one
    hyperparameters: Mapping[str, Any] = NO_GROUPS  # the score was reached with these

    @property
    def failed(self) -> bool:
        """Whether the member has failed: it raised an error, or what it should have scored is not finite."""
        return bool(self.error) or (self.scored and not math.isfinite(self.score))


class OnTestRows(NamedTuple):
    """What a member came to on the rows of the test split, with its last weights."""

    losses: Mapping[str, float] = NO_GROUPS  # group -> loss
    score: float = float("nan")
    measures: Mapping[str, float] = NO_GROUPS
    loss_errors: Mapping[str, float] = NO_GROUPS  # group -> standard error of its loss over its rows
    error: str = ""  # trace of what the member's own code raised


NO_TESTS: Mapping[int, OnTestRows] = {}
Shapes = Mapping[int, Mapping[str, tuple[int, ...]]]  # member -> weight -> its shape
NO_SHAPES: Shapes = {}


class Message(NamedTuple):
    """What a worker tells the driver at once."""

    rows: Sequence[Row] = ()
    tests: Mapping[int, OnTestRows] = NO_TESTS  # member -> what it came to; of a failed member nothing
    leaving: bool = False  # the worker's node is to go: this round's checkpoint is written whatever is due
    decided: tuple[PopulationState, list[Order]] | None = None  # by the worker that has all members
    failed: str | None = None  # why the run has to end
    shapes: Shapes = NO_SHAPES  # a worker that begins tells those of one member, where members copy


def unlike(shapes: Shapes) -> str:
    """Return why members cannot copy one another: the first weight whose shape differs; or nothing."""
    numbers = sorted(shapes)
    for number in numbers[1:]:
        known, found = shapes[numbers[0]], shapes[number]
        apart = sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name))
        if apart:
            return (
                f"hyperparameters: members {numbers[0]} and {number} differ in the shape of {apart[0]} "
                f"({known.get(apart[0])} and {found.get(apart[0])}), so neither could copy the other: let no "
                f"hyperparameter shape the module, or set population.exploit: none"
            )
    return ""


class RoundOrders(NamedTuple):
    """The orders of a round, as its members get them."""

    orders: Sequence[Order]
    over: bool = False  # rows have ended: this round was the last one


class Verdict(NamedTuple):
    """The answer to one report of an asynchronous member; without an order it goes on as it is."""

    member: int
    round: int
    order: Order | None
    source: tuple[int, int] | None  # the donor's own round, and the donor
    ended: bool  # whether the member trains no more
    weights: Any = None  # where the donor's published state is; the receiver puts it in
