"""What came out of a run: the best member and its weights, the records as Arrow tables, the figures."""

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.policies.inductive_bias import Bias
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.records import directory
from shoal.search.records.last import member_of
from shoal.search.records.lineage import ancestry, read_lineage, schedule_of
from shoal.search.records.tables import LINEAGE, METRICS, MIXING, MIXING_SCHEMA


class TrainedMember:
    """A member as its last checkpoint has it; weights are read when they are asked for."""

    def __init__(self, run: Run, store: Store, number: int | None = None):
        self._run, self._store = run, store
        self._row = member_of(run, store, number)
        self.member: int = self._row.member
        self.score: float = self._row.score  # higher is better; of a language model minus its loss in nats
        self.step: int = self._row.step

    def __repr__(self) -> str:
        return f"TrainedMember({self.member}, score={self.score:.4f}, step={self.step})"

    @cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """The hyperparameters under which it has trained last."""
        path = ancestry(read_lineage(self._store), self.member, round=self._row.round)
        return dict(path[-1].hyperparameters)

    @cached_property
    def schedule(self) -> pa.Table:
        """Hyperparameters over the steps, along the lineage of its weights: a row from each change on."""
        path = ancestry(read_lineage(self._store), self.member, round=self._row.round)
        entries = schedule_of(path)
        return table_of([{"from_step": entry.from_step, **columns(entry.hyperparameters)} for entry in entries])

    @cached_property
    def weights(self) -> dict[str, NDArray[Any]]:
        """Its weights by name."""
        return directory.whole_weights(self._run, self._store, self._row)

    @cached_property
    def rows(self) -> pa.Table:
        """What its sampling policy holds of each training row: group, id, last loss, whether it is left out."""
        from shoal.search.report.left_out import rows_of_member

        return rows_of_member(self._run, self._store, self._row)

    def load(self) -> Any:
        """Return the trained torch module on the CPU, in evaluation mode; or the member, if it has none.

        Raises InputError where the run's weights make no module of their own.
        """
        from shoal.search.front.loading import load_trained  # which imports torch

        return load_trained(self._run, self._store, self._row, self.weights, self.hyperparameters)


class Result:
    """A run directory, read whenever it is asked: a run that goes on shows how far it has come.

    The tables are `pyarrow.Table`s, which have `to_pandas()`.
    """

    def __init__(self, place: str):
        self.run, self._store = directory.open_run(place)

    def __repr__(self) -> str:
        return f"Result({self.directory!r}, {self.status})"

    @property
    def directory(self) -> str:
        """The run's directory, an absolute path or a URI."""
        return self._store.uri

    @property
    def summary(self) -> dict[str, Any]:
        """The status of the run, and when it is done its best score, test losses and seconds."""
        return directory.summary(self._store)

    @property
    def status(self) -> str:
        """`running`, `done`, `failed`, `interrupted`, `stopped`, or `not begun`."""
        return str(self.summary.get("status", "not begun"))

    @property
    def best(self) -> TrainedMember:
        """The best member of the last checkpoint."""
        return self.member()

    def member(self, number: int | None = None) -> TrainedMember:
        """Return a member, the best one by default."""
        self._needs_population("member")
        return TrainedMember(self.run, self._store, number)

    @property
    def members(self) -> pa.Table:
        """One row for each member, best first: score, losses, copies, and its last hyperparameters."""
        self._needs_population("members")
        from shoal.search.report.story import read_story

        story = read_story(self._store)
        copied = [copy.member for copy in story.copies]
        donated = [copy.parent for copy in story.copies]
        rows = []
        for member in story.ranking:
            path, last = story.path_of(member), story.rows[member][-1]
            losses = {name: value for name, value in last.items() if name.startswith("loss_")}
            counts = {"copied": copied.count(member), "was_copied": donated.count(member)}
            place = {"member": member, "score": last["score"], "step": last["step"], **losses, **counts}
            rows.append(place | {"began_in": path[0].member, **columns(path[-1].hyperparameters)})
        return table_of(rows)

    @property
    def metrics(self) -> pa.Table:
        """One row for each round and member: scores, losses, tokens, seconds."""
        return self._table(METRICS, "metrics")

    @property
    def lineage(self) -> pa.Table:
        """Who copied whom, when; hyperparameters before and after are JSON."""
        return self._table(LINEAGE, "lineage")

    @property
    def mixture(self) -> pa.Table:
        """One row for each round, member and group: its share. Without a mixing policy there is no row."""
        self._needs_population("mixture")
        return self._table(MIXING, "mixture") if self._store.exists(MIXING) else MIXING_SCHEMA.empty_table()

    @property
    def schedule(self) -> pa.Table:
        """The best member's hyperparameters over the steps."""
        return self.best.schedule

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of the report by name, as `plotly.graph_objects.Figure`s, which a notebook shows."""
        self._needs_population("figures")
        from shoal.search.front.drawn import figures_of  # plotly's Python figures take a second to import

        return figures_of(self._store)

    def inductive_bias(self, at: float, column: str = "", fitted: float | None = None) -> Bias:
        """Return how many nats single out the members whose held-out error is at most `at`, with an interval.

        The run must be finished, without exploits, and its members must differ by their seeds alone. An error
        is a column of `metrics`, such as a measure of your class, or else the mean of the groups' losses. With
        `fitted` only members count whose training loss is at most so large (Boopathy et al., 2024).
        """
        self._needs_population("inductive bias")
        from shoal.search.report.inductive import bias_of
        from shoal.search.report.story import read_story

        return bias_of(read_story(self._store), at, column, fitted)

    def report(self) -> str:
        """Draw the run as one HTML file that opens offline, and return its place."""
        from shoal.search.report.staged import write_stages_report
        from shoal.search.report.write import write_report

        if self.run.kind == "stages":
            return write_stages_report(self._store)
        self._needs_population("report")
        return write_report(self._store)

    def export(self, member: int | None = None, *, student: str | None = None, to: Any = None) -> str:
        """Write a member, the best by default, or a student as safetensors; return the folder."""
        target = None if to is None else Store(os.fspath(to))
        if student is not None:
            from shoal.search.distill.export import export_student

            return export_student(self.run, self._store, student, target)
        self._needs_population("export")
        return directory.export_member(self.run, self._store, member, target).rpartition("/")[0]

    def replay(self, member: int | None = None) -> "Result":
        """Train one model along a member's schedule, that of the best by default, and return its result."""
        from shoal.search.front.running import replay_here

        return Result(replay_here(self.directory, self.member(member).member))

    def resume(self) -> "Result":
        """Continue the run from its last checkpoint, to its end."""
        from shoal.search.front.running import train_on_here

        return Result(train_on_here(self.directory))

    def _needs_population(self, what: str) -> None:
        if self.run.kind == "stages":
            last = self.run.stages[-1].name
            raise InputError(
                f"{self.directory} is of kind stages and has no {what} itself; open one of its stages, such as "
                f"the last, {self.directory}/{last}."
            )
        if self.run.kind == "mixture":
            raise InputError(
                f"{self.directory} is of kind mixture and has no {what} itself; open its confirming run, "
                f"{self.directory}/confirm, or its small ones, {self.directory}/swarm."
            )

    def _table(self, name: str, what: str) -> pa.Table:
        self._needs_population(what)
        if not self._store.exists(name):
            raise InputError(f"{self.directory} has no {what} yet: it has not finished a round.")
        return self._store.read_table(name)


def columns(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters as columns, such as `hyperparameters.learning_rate`; inner names follow a dot."""
    return directory.flat_settings(dict(hyperparameters), "hyperparameters") if hyperparameters else {}


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table; a column whose values are of several kinds holds them as JSON."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: arrow_column([row.get(name) for row in rows]) for name in names})


def arrow_column(values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {float, int} or len(kinds) == 1:
        try:
            return pa.array([np.nan if value is None and float in kinds else value for value in values])
        except (pa.ArrowException, OverflowError):  # lists of several kinds, or numbers beyond int64
            pass
    return pa.array([json.dumps(value) for value in values])
