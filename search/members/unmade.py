"""A member whose class raised when it was made: only this member fails, and not the run."""

from collections.abc import Callable
from typing import Any

from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.member import Member, SavedState, copies

UNMADE_STATE: SavedState = {"weights": {}, "trained": 0}  # saved state of a member that could not be made


class Unmade:
    """A member that fails until it becomes a clone and can be made with its new hyperparameters."""

    def __init__(self, make: Callable[[dict[str, Any]], Member], error: Exception):
        self.make, self.error = make, error
        self.member: Member | None = None

    @property
    def trained(self) -> int:
        return 0 if self.member is None else self.member.trained

    @property
    def batches(self) -> Any:
        return getattr(self.member, "batches", None)

    def there(self) -> Member:
        if self.member is None:
            raise self.error
        return self.member

    def train(self, steps: int) -> float:
        return self.there().train(steps)

    def evaluate(self, split: str = "validation") -> tuple[float, dict[str, float]]:
        return self.there().evaluate(split)

    @copies
    def state(self) -> SavedState:
        return UNMADE_STATE if self.member is None else handed_out(self.member.state)

    @copies
    def load(self, state: SavedState, hyperparameters: dict[str, Any]) -> None:
        if self.member is None:
            try:
                self.member = self.make(hyperparameters)
            except (
                Exception
            ) as error:  # the user's class may raise anything: `there` raises it at the next training
                self.error = error
                return
        if state["weights"]:
            hand_in(self.member.load, state, hyperparameters)
