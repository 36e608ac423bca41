"""A run in MLflow: each member is a run of its own, in one experiment."""

import os
import time
from collections.abc import Sequence
from typing import Any

from shoal.search.config.run import Run
from shoal.search.config.tracking import MLflow
from shoal.search.messages import Row
from shoal.search.records.tables import Event
from shoal.search.track.measures import copies_in_words, told_numbers, words

# the client's own defaults let a server that is down hold it for minutes
LITTLE_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
LONGEST_TAG, MOST_METRICS = 4000, 900  # letters, and metrics of one request: a server refuses more
STATUS = {"done": "FINISHED", "failed": "FAILED"}

Point = tuple[str, int, float]  # name, step, value


class ServerRuns:
    """Writes to an MLflow server; a point that is there already is not written again."""

    only_grows = goes_on = False

    def __init__(self, run: Run, given: MLflow, key: str):
        self.run, self.key = run, key
        self.uri = given.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        self.experiment = given.experiment or run.name
        self.place = f"mlflow: {self.uri or 'its default store'}, experiment {self.experiment}"
        self.client: Any = None
        self.number = ""  # the number of the experiment
        self.runs: dict[int, str] = {}  # member -> the id of its run
        self.there: dict[int, set[Point]] = {}  # member -> what its run holds, as far as that is known
        self.asked: set[tuple[int, str]] = set()  # members and names of which the run was asked what it holds
        self.found: set[int] = set()  # members whose runs had been begun before

    def gone(self) -> bool:
        return False

    def begin_anew(self) -> None:
        """Do nothing: with another key the members get runs of their own."""

    def row(self, row: Row) -> None:
        id_ = self.run_of(row)
        points = [(name, row.step, value) for name, value in told_numbers(self.run, row)]
        self.ask(row.member, [name for name, _, _ in points])
        new = [point for point in points if point not in self.there[row.member]]
        self.write(id_, new)
        self.there[row.member] |= set(new)
        for name, value in words(row).items():
            self.client.set_tag(id_, f"hyperparameters.{name}", value[:LONGEST_TAG])

    def write(self, id_: str, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, step, value in points]
        for first in range(0, len(metrics), MOST_METRICS):
            self.client.log_batch(id_, metrics=metrics[first : first + MOST_METRICS])

    def ask(self, member: int, names: Sequence[str]) -> None:
        """Learn which points of these names a run holds that had been begun before."""
        if member not in self.found:
            return
        for name in names:
            if (member, name) not in self.asked:
                history = self.client.get_metric_history(self.runs[member], name)
                self.there[member] |= {(name, each.step, each.value) for each in history}
                self.asked.add((member, name))

    def copied(self, member: int, copies: Sequence[Event]) -> None:
        if member in self.runs:
            self.client.set_tag(self.runs[member], "shoal.parent", str(copies[-1].parent))
            self.client.set_tag(self.runs[member], "shoal.copies", copies_in_words(copies, LONGEST_TAG))

    def best(self, member: int, folder: str) -> None:
        """Keep the exported member as an artifact of its run."""
        id_ = self.run_of(Row(member))
        self.client.log_artifacts(id_, folder, "best")
        self.client.set_tag(id_, "shoal.best", "true")

    def flush(self) -> None:
        """Do nothing: whatever is written is sent at once."""

    def close(self, status: str) -> None:
        for id_ in self.runs.values():
            self.client.set_terminated(id_, STATUS.get(status, "KILLED"))

    def run_of(self, row: Row) -> str:
        """Return the id of a member's run: one that was begun before, or a new one."""
        if row.member in self.runs:
            return self.runs[row.member]
        self.connect()
        wanted = f"tags.`shoal.run` = '{self.key}' and tags.`shoal.member` = '{row.member}'"
        known = self.client.search_runs([self.number], wanted, max_results=1)
        if known:
            id_ = known[0].info.run_id
            self.client.update_run(id_, status="RUNNING")
            self.found.add(row.member)
        else:
            id_ = self.begin(row)
        self.runs[row.member] = id_
        self.there[row.member] = set()
        return id_

    def begin(self, row: Row) -> str:
        """Begin the run of a member; the hyperparameters that it began with are its parameters."""
        from mlflow.entities import Param

        tags = {"shoal.run": self.key, "shoal.member": str(row.member), "shoal.directory": self.run.directory}
        name = f"{self.run.label} member {row.member}"
        id_: str = self.client.create_run(self.number, run_name=name, tags=tags).info.run_id
        first = {
            name: value for name, value in told_numbers(self.run, row) if name.startswith("hyperparameters/")
        }
        plain = {name.partition("/")[2]: str(value) for name, value in first.items()} | words(row)
        self.client.log_batch(id_, params=[Param(name, value[:LONGEST_TAG]) for name, value in plain.items()])
        return id_

    def connect(self) -> None:
        if self.client is not None:
            return
        for name, value in LITTLE_PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient  # late: only who tracks needs it
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self.uri or None)
        found = client.get_experiment_by_name(self.experiment)
        try:
            self.number = found.experiment_id if found else client.create_experiment(self.experiment)
        except MlflowException:  # another run may have made it meanwhile
            found = client.get_experiment_by_name(self.experiment)
            if found is None:
                raise
            self.number = found.experiment_id
        self.client = client
