"""The losses that a sampling policy uses: a member's own, or those of all members of its brood."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.ledger import Sender
from shoal.policies.sampling.interface import Ids
from shoal.policies.sampling.losses import LastLosses
from shoal.trainables.member import SavedState


class Pace:
    """How far a member's training has come, shared by its pools."""

    def __init__(self, batches: float):
        self.batches, self.drawn = batches, 0


class View(Protocol):
    """The losses by which a policy decides about a pool's rows."""

    def losses(self) -> NDArray[np.float32]:
        """Return the last loss of each row, NaN where there is none."""

    def observe(self, ids: Ids, losses: NDArray[np.floating], steps: Ids) -> None: ...

    def flush(self) -> None:
        """Wait until all observed losses have arrived; called at the end of a round."""

    def state(self) -> SavedState: ...

    def load(self, state: SavedState) -> None: ...


class OwnView:
    """The losses that a member's own weights had; they are part of its state, and move with the weights."""

    def __init__(self, rows: int):
        self.last = LastLosses(rows)

    def losses(self) -> NDArray[np.float32]:
        return self.last.loss

    def observe(self, ids: Ids, losses: NDArray[np.floating], steps: Ids) -> None:
        self.last.observe(ids, losses, steps, np.zeros_like(steps))

    def flush(self) -> None:
        pass

    def state(self) -> SavedState:
        return self.last.state()

    def load(self, state: SavedState) -> None:
        self.last.restore(state)


class Shared(NamedTuple):
    """A worker's way to the ledger of its run."""

    sender: Sender
    first: int  # first row of the brood in the ledger
    interval: int  # steps of a round; the ledger is marked and saved at its end


class BroodView:
    """The losses of all members of a brood, in the ledger, as they were when the last round was decided.

    By then all losses of that round had arrived and none of the next, so the result does not depend on timing.
    If two members have a loss of the same row and step, the member with the larger number counts.
    """

    def __init__(self, shared: "Shared", first: int, rows: int, member: int, pace: Pace):
        self.shared, self.first, self.rows, self.member, self.pace = shared, first, rows, member, pace

    def losses(self) -> NDArray[np.float32]:
        decided = self.pace.drawn // self.shared.interval
        return self.shared.sender.ledger.read("loss", decided)[self.first : self.first + self.rows]

    def observe(self, ids: Ids, losses: NDArray[np.floating], steps: Ids) -> None:
        decided = (self.pace.drawn - 1) // self.shared.interval
        self.shared.sender.saved(decided)  # the files of that mark hold all losses sent before it
        self.shared.sender.send(ids + self.first, losses, steps, np.full(len(ids), self.member))

    def flush(self) -> None:
        self.shared.sender.flush()

    def state(self) -> SavedState:
        return {}

    def load(self, state: SavedState) -> None:
        pass
