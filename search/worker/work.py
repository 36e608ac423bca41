"""What a brood's workers are given. Ray's processes on the way to them read it, so it imports no torch."""

from dataclasses import dataclass

from shoal.cluster.ledger import Ledger
from shoal.policies.population import PopulationState
from shoal.search.config.run import Run


@dataclass(frozen=True)
class Work:
    """What the workers of all broods are given."""

    run: Run
    state: PopulationState
    threads: int  # torch has so many on each worker
    ledger: Ledger | None
    over: bool = False  # the rows had ended when the driver began
