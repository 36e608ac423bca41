"""A run in TensorBoard: each member is a run of its own, below one folder."""

import os
import shutil
from collections.abc import Sequence
from typing import Any

from shoal.search.config.run import Run
from shoal.search.config.tracking import TensorBoard
from shoal.search.messages import Row
from shoal.search.records.directory import CONTROLS
from shoal.search.records.tables import Event
from shoal.search.track.measures import told_numbers, words


def part_of_run(directory: str) -> str:
    """Return the folder of a run within another, such as `baseline` or `replay/3`; nothing for a run itself."""
    above, last = directory.rstrip("/").split("/")[-2:]
    if above == "replay":
        return f"{above}/{last}"
    return last if last in (*CONTROLS, "swarm", "confirm") else ""


class EventFiles:
    """Writes rows and copies as event files; what a resumed run writes again hides what was there."""

    only_grows = goes_on = False

    def __init__(self, run: Run, given: TensorBoard, key: str):
        self.run = run
        place = f"{given.directory}/{part_of_run(run.directory)}" if given.directory else ""
        self.folder = os.path.abspath(place or f"{run.directory}/tensorboard")
        self.place = f"tensorboard: {self.folder}"
        self.writers: dict[int, Any] = {}

    def gone(self) -> bool:
        """Say whether nothing is there of what was written before."""
        return not os.path.isdir(self.folder)

    def begin_anew(self) -> None:
        """Take away what was written before."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def row(self, row: Row) -> None:
        writer = self.writer(row)
        for name, value in told_numbers(self.run, row):
            writer.add_scalar(name, value, row.step)
        for name, said in words(row).items():
            writer.add_text(f"hyperparameters/{name}", said, row.step)

    def copied(self, member: int, copies: Sequence[Event]) -> None:
        if member in self.writers:
            self.writers[member].add_text("copy", f"from member {copies[-1].parent}", copies[-1].step)

    def best(self, member: int, folder: str) -> None:
        """Do nothing: event files hold no files of weights."""

    def flush(self) -> None:
        for writer in self.writers.values():
            writer.flush()

    def close(self, status: str) -> None:
        for writer in self.writers.values():
            writer.close()

    def writer(self, row: Row) -> Any:
        from tensorboardX import SummaryWriter  # late: only who tracks needs it

        if row.member not in self.writers:
            place = os.path.join(self.folder, f"member-{row.member:05d}")
            before = len(os.listdir(place)) if os.path.isdir(place) else 0
            # events of this step and later are from before a resume
            purged = row.step if before else None
            # a file's name has the second in which it began, and readers go by the order of names
            writer = SummaryWriter(place, purge_step=purged, filename_suffix=f".{before:06d}")
            self.writers[row.member] = writer
        return self.writers[row.member]
