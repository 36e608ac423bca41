"""A run in Weights & Biases: each member is a run of its own, in one group."""

import os
from collections.abc import Sequence
from typing import Any

from shoal.search.config.run import Run
from shoal.search.config.tracking import WeightsAndBiases
from shoal.search.messages import Row
from shoal.search.records.tables import Event
from shoal.search.track.measures import copies_in_words, told_numbers, words

SECONDS_TO_ANSWER = 20  # that a server may take to answer
LONGEST_VALUE = 4000  # letters of a value
SEARCHED = "hyperparameters/"
QUIET: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "x_disable_stats": True,
    "disable_git": True,
    "save_code": False,
}


class GroupRuns:
    """Writes runs of W&B; what they hold can only grow, so nothing is written twice."""

    only_grows = True

    def __init__(self, run: Run, given: WeightsAndBiases, key: str):
        self.run, self.key = run, key
        self.project = given.project or run.name
        self.entity = given.entity or None
        self.place = f"wandb: project {'/'.join(filter(None, [self.entity, self.project]))}, group {self.group}"
        self.goes_on = False
        self.runs: dict[int, Any] = {}

    @property
    def group(self) -> str:
        return f"{self.run.label.replace(' ', '-')}-{self.key}"

    def gone(self) -> bool:
        return False

    def begin_anew(self) -> None:
        """Do nothing: with another key the members get runs of their own."""

    def row(self, row: Row) -> None:
        told = self.run_of(row)
        told.log(dict(told_numbers(self.run, row)) | {"step": row.step})
        if said := words(row):
            told.config.update({f"now.{name}": value for name, value in said.items()}, allow_val_change=True)

    def copied(self, member: int, copies: Sequence[Event]) -> None:
        if member in self.runs:
            told = self.runs[member]
            told.tags = tuple(sorted({*(told.tags or ()), f"from-{copies[-1].parent}"}))
            said = {"parent": copies[-1].parent, "copies": copies_in_words(copies, LONGEST_VALUE)}
            told.config.update(said, allow_val_change=True)

    def best(self, member: int, folder: str) -> None:
        """Keep the exported member as an artifact."""
        import wandb  # late, as below

        artifact = wandb.Artifact(f"{self.run.name}-{self.key}-best", type="model")
        artifact.add_dir(folder)
        self.run_of(Row(member)).log_artifact(artifact)

    def flush(self) -> None:
        """Do nothing: a process of W&B sends what was logged."""

    def close(self, status: str) -> None:
        for told in self.runs.values():
            told.finish(exit_code=0 if status == "done" else 1)

    def run_of(self, row: Row) -> Any:
        """Return the run of a member; one that was begun before goes on."""
        if row.member not in self.runs:
            told = self.runs[row.member] = self.begin(row.member)
            told.define_metric("step")
            told.define_metric("*", step_metric="step")
            if not self.goes_on:
                told.config.update(self.first(row))
        return self.runs[row.member]

    def begin(self, member: int) -> Any:
        import wandb  # late: only who tracks needs it

        online = os.environ.get("WANDB_MODE", "online") in ("online", "run", "shared")
        # without a key W&B would ask for one in the terminal of the run
        if online and not self.runs and not wandb.login(prompt=False):
            raise ConnectionError("no key is known; set WANDB_API_KEY, or WANDB_MODE=offline")
        return wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            name=f"member-{member:05d}",
            id=f"{self.key}-{member}",
            dir=None if "://" in self.run.directory else self.run.directory,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(**QUIET, init_timeout=SECONDS_TO_ANSWER, finish_timeout=SECONDS_TO_ANSWER),
        )

    def first(self, row: Row) -> dict[str, Any]:
        """Return the hyperparameters that a member begins with, and which member it is."""
        numbers = {name: value for name, value in told_numbers(self.run, row) if name.startswith(SEARCHED)}
        begun = {name.removeprefix(SEARCHED): value for name, value in numbers.items()}
        return {**begun, **words(row), "member": row.member, "directory": self.run.directory}
