"""A member whose class raised when it was made: its failure, and not the run's."""

from collections.abc import Callable
from typing import Any

from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.member import Member, SavedState, copies

UNMADE_STATE: SavedState = {"weights": {}, "trained": 0}  # what is saved of a member that is not there


class Unmade:
    """Fails, until it is told to be a clone and can be made under the hyperparameters that it gets then."""

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
            except Exception as error:  # the class is the user's: this is told when it is to train
                self.error = error
                return
        if state["weights"]:
            hand_in(self.member.load, state, hyperparameters)
