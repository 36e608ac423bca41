"""The Tune scheduler: translation without arithmetic. Tune never pauses or restarts a trial for an exploit."""

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from shoal.cluster.lease import LeaseLost
from shoal.cluster.storage import BrokenFile, CannotWrite
from shoal.search.driver.conductor import Conductor


class PopulationScheduler(FIFOScheduler):
    """Hands every report to the conductor, which decides and leaves orders; always answers CONTINUE."""

    def __init__(self, conductor: Conductor):
        super().__init__()
        self.conductor: Conductor | None = conductor

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        assert self.conductor is not None
        try:
            for message in result["messages"]:
                self.conductor.receive(message)
        except (BrokenFile, CannotWrite, LeaseLost) as error:
            self.conductor.broken = error
            self.conductor.end(str(error))  # the broods leave; nothing of this driver is written any more
        return TrialScheduler.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its settings; the population's state is in the run's own checkpoint, not there
        return self.__dict__ | {"conductor": None}
