"""A run read back from its directory, and what follows: the winner, where its weights trained, curves."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from shoal.cluster.storage import Store
from shoal.policies.space import Path, value_at
from shoal.policies.standings import rank
from shoal.search.errors import InputError
from shoal.search.notation import read_yaml
from shoal.search.records.directory import CONTROLS, SETTINGS, SUMMARY, summary
from shoal.search.records.lineage import Segment, ancestry, read_lineage, roots, stays
from shoal.search.records.tables import METRICS, MIXING, Event, measured_columns, read_table_rows

RowsByMember = dict[int, list[dict[str, Any]]]  # member -> its rows in the order of rounds
StepValues = list[tuple[int, float | None]]  # (step, value); None where a member failed


@dataclass(frozen=True)
class Control:
    """A run of the same budget with which this one is compared: see CONTROLS."""

    name: str
    rows: RowsByMember
    summary: dict[str, Any]


@dataclass(frozen=True)
class Story:
    """What a report tells of a run, as far as the run has come."""

    configuration: str  # the text of run.yaml
    settings: dict[str, Any]
    summary: dict[str, Any]
    events: list[Event]
    rows: RowsByMember
    controls: Mapping[str, Control] = field(default_factory=dict)  # folder -> control
    mixtures: Sequence[dict[str, Any]] = ()  # one row for each round, member and group, if members mix

    @property
    def name(self) -> str:
        return str(self.settings.get("name", "run"))

    @property
    def status(self) -> str:
        return str(self.summary.get("status", "running"))

    @property
    def unit(self) -> str:
        """What the curves show: a score, or the loss that it is minus of."""
        if named := self.summary.get("ranked_by"):
            return str(named)
        return "validation loss" if self.losses else "score"

    @property
    def losses(self) -> bool:
        """Whether lower is better."""
        if "better" in self.summary:
            return bool(self.summary["better"] == "lower")
        # the run of an older version, which knew one score for each class
        declared = self.settings.get("declared") or {}
        trainable = self.settings.get("trainable", "decoder")
        return trainable in ("decoder", "causal_lm") or bool(declared.get("by_loss"))

    def shown(self, score: float | None) -> float | None:
        """Return a score as the report shows it; None where a member failed."""
        known = finite(score)
        return known if known is None or not self.losses else -known

    @cached_property
    def domains(self) -> dict[str, dict[str, Any]]:
        """Every domain by its whole name, such as `optimiser.rate` for one of a space within the space."""
        return {
            ".".join(path): domain
            for path, domain in domains_by_path(self.settings.get("hyperparameters") or {})
        }

    @cached_property
    def hyperparameters(self) -> list[str]:
        """Names in the order of the configuration, then those that only the lineage knows."""
        seen = {name for event in self.events for name in event.after}
        return [*(name for name in self.domains if name in seen), *sorted(seen - set(self.domains))]

    @cached_property
    def groups(self) -> list[str]:
        names = {name for rows in self.rows.values() for row in rows for name in row}
        return sorted(name.removeprefix("loss_") for name in names if name.startswith("loss_"))

    @cached_property
    def measures(self) -> list[str]:
        """The columns that hold what the members' class measures beside its losses."""
        names = {name for rows in self.rows.values() for row in rows for name in row}
        return sorted(measured_columns(names))

    @property
    def mixed_groups(self) -> list[str]:
        """The groups of the mixtures, in the order of the run's file."""
        return list(dict.fromkeys(row["group"] for row in self.mixtures))

    @cached_property
    def steps(self) -> list[int]:
        return sorted({row["step"] for rows in self.rows.values() for row in rows})

    @property
    def last_step(self) -> int:
        return self.steps[-1]

    @property
    def planned_steps(self) -> int:
        return max(int((self.settings.get("training") or {}).get("steps", 0)), self.last_step)

    @cached_property
    def copies(self) -> list[Event]:
        return [event for event in self.events if event.event == "copy"]

    @cached_property
    def last_scores(self) -> dict[int, float]:
        return {member: _number(rows[-1]["score"]) for member, rows in self.rows.items()}

    @cached_property
    def ranking(self) -> list[int]:
        return rank(self.last_scores)

    @cached_property
    def winner(self) -> int:
        said = self.summary.get("best_member")
        return said if self.status == "done" and said in self.rows else self.ranking[0]

    @cached_property
    def path(self) -> list[Segment]:
        """Where the winner's weights trained, root first."""
        return self.path_of(self.winner)

    def path_of(self, member: int) -> list[Segment]:
        return ancestry(self.events, member, round=self.rows[member][-1]["round"])

    @cached_property
    def stays(self) -> dict[int, list[Segment]]:
        return stays(self.events)

    @cached_property
    def roots(self) -> dict[tuple[int, int], int]:
        return roots(self.events)

    def until(self, segment: Segment) -> int:
        return self.last_step if segment.to_step is None else segment.to_step

    def score_curve(self, segment: Segment) -> StepValues:
        """Return the scores of weights during one stay in a slot, from the score that they came with."""
        curve = [(row["step"], self.shown(row["score"])) for row in self.rows_of(segment)]
        arrival = self._arrivals[segment.member, segment.from_round]
        return curve if arrival.parent is None else [(arrival.began, self.shown(arrival.parent_score)), *curve]

    def group_curve(self, path: Sequence[Segment], group: str) -> StepValues:
        """Return the group's validation loss along a path."""
        return self.column_curve(path, f"loss_{group}")

    def column_curve(self, path: Sequence[Segment], column: str) -> StepValues:
        rows = [row for segment in path for row in self.rows_of(segment)]
        return [(row["step"], finite(row.get(column))) for row in rows]

    def quantiles(self, column: str, at: Sequence[float]) -> list[StepValues]:
        return quantiles(self.rows, column, at)

    def best_so_far(self, rows: RowsByMember) -> StepValues:
        """Return the best score that any member had reached at each step."""
        best = -math.inf
        reached: dict[int, float] = {}
        for row in sorted((row for member in rows.values() for row in member), key=lambda row: row["step"]):
            best = max(best, -math.inf if (score := finite(row["score"])) is None else score)
            reached[row["step"]] = best
        return [(step, self.shown(score)) for step, score in reached.items()]

    @cached_property
    def _arrivals(self) -> dict[tuple[int, int], Event]:
        return {(event.member, event.round): event for event in self.events}

    def rows_of(self, segment: Segment) -> list[dict[str, Any]]:
        last = math.inf if segment.to_round is None else segment.to_round
        return [row for row in self.rows.get(segment.member, []) if segment.from_round < row["round"] <= last]


def read_story(store: Store) -> Story:
    """Read a run directory; raises InputError if it has no configuration, lineage or metrics."""
    if not store.exists(SETTINGS):
        raise InputError(f"{store.uri} is not a run directory: it has no {SETTINGS}.")
    text = store.read(SETTINGS).decode()
    events, rows = read_lineage(store), by_member(read_table_rows(store, METRICS))
    unknown = sorted(set(rows) - {event.member for event in events})
    if unknown:
        raise InputError(
            f"{store.uri}/{METRICS} names members without a start in the lineage: "
            f"{', '.join(map(str, unknown))}; the two must come from one run."
        )
    settings = read_yaml(text, f"{store.uri}/{SETTINGS}") or {}
    paths = [path for path, _ in domains_by_path(settings.get("hyperparameters") or {}) if len(path) > 1]
    events = [
        event._replace(before=event.before and dotted(event.before, paths), after=dotted(event.after, paths))
        for event in events
    ]
    mixtures = read_table_rows(store, MIXING) if store.exists(MIXING) else []
    return Story(text, settings, summary(store), events, rows, read_controls(store), mixtures)


def read_controls(store: Store) -> dict[str, Control]:
    """Return the controls that have finished a round."""
    found = {}
    for folder, name in CONTROLS.items():
        if store.exists(f"{folder}/{METRICS}"):
            said = f"{folder}/{SUMMARY}"
            rows = by_member(read_table_rows(store, f"{folder}/{METRICS}"))
            found[folder] = Control(name, rows, dict(store.read_json(said)) if store.exists(said) else {})
    return found


def quantiles(rows: RowsByMember, column: str, at: Sequence[float]) -> list[StepValues]:
    """Return the quantiles `at` over the members that did not fail, with one curve for each quantile."""
    values: dict[int, list[float]] = {}
    for row in sorted((row for member in rows.values() for row in member), key=lambda row: row["step"]):
        if (value := finite(row.get(column))) is not None:
            values.setdefault(row["step"], []).append(value)
    table = [(step, np.quantile(found, at)) for step, found in values.items()]
    return [[(step, float(found[place])) for step, found in table] for place in range(len(at))]


def by_member(rows: Iterable[dict[str, Any]]) -> RowsByMember:
    found: RowsByMember = {}
    for row in sorted(rows, key=lambda row: (row["member"], row["round"])):
        found.setdefault(row["member"], []).append(row)
    return found


def domains_by_path(domains: dict[str, Any], above: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each domain of a run's file with its path; a space within the space has no kind."""
    for name, domain in domains.items():
        if isinstance(domain.get("kind"), str):
            yield (*above, name), domain
        else:
            yield from domains_by_path(domain, (*above, name))


def dotted(given: dict[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    """Return hyperparameters in which those of inner spaces have whole names, such as `optimiser.rate`."""
    within = {path[0] for path in paths}
    kept = {name: value for name, value in given.items() if name not in within}
    return kept | {".".join(path): value_at(given, path) for path in paths}


def finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
