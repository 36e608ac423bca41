"""The last loss of every row, whatever the order in which losses arrive."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.policies.sampling.interface import Ids

BYTES_A_ROW = 20


class LastLosses:
    """Loss, step and model version of each row `0 ... rows - 1`: 20 bytes a row.

    A loss replaces another if its (step, version) is larger; between equals the larger loss stands. So
    what is held does not depend on order, repetition or how the losses are cut into calls. A loss that is
    not finite is held as infinite, the hardest there is; NaN means that a row has never been seen.
    """

    def __init__(self, rows: int):
        self.loss = np.full(rows, np.nan, np.float32)
        self.step = np.full(rows, -1, np.int64)
        self.version = np.full(rows, -1, np.int64)

    def observe(
        self, ids: Ids, losses: NDArray[np.floating], steps: NDArray[np.int64], versions: NDArray[np.int64]
    ) -> None:
        losses = np.where(np.isfinite(losses), losses, np.inf).astype(np.float32)
        # the newest of each id is the last of its run
        order = np.lexsort((losses, versions, steps, ids))
        ids, losses, steps, versions = ids[order], losses[order], steps[order], versions[order]
        last = np.append(ids[1:] != ids[:-1], np.ones(min(len(ids), 1), bool))
        ids, losses, steps, versions = ids[last], losses[last], steps[last], versions[last]
        held = self.step[ids], self.version[ids]
        tied = (steps == held[0]) & (versions == held[1])
        newer = (
            (steps > held[0]) | ((steps == held[0]) & (versions > held[1])) | (tied & (losses > self.loss[ids]))
        )
        ids = ids[newer]
        self.loss[ids], self.step[ids], self.version[ids] = losses[newer], steps[newer], versions[newer]

    def column(self, name: str) -> NDArray[Any]:
        """Return a copy of "loss", "step" or "version", `(rows,)`."""
        held: dict[str, NDArray[Any]] = {"loss": self.loss, "step": self.step, "version": self.version}
        return held[name].copy()

    def coverage(self) -> float:
        """Return the share of rows that have been seen."""
        return float((self.step >= 0).mean()) if len(self.step) else 1.0

    def state(self) -> dict[str, Any]:
        return {name: self.column(name) for name in ("loss", "step", "version")}

    def restore(self, state: dict[str, Any]) -> None:
        # copies: what Ray hands over is read-only
        self.loss, self.step, self.version = (np.array(state[name]) for name in ("loss", "step", "version"))
