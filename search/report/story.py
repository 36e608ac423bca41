"""A run read back from its directory, with what follows from it: who leads, whose weights, which curves."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import yaml

from cluster.storage import Store
from policies.space import Path, value_at
from policies.standings import rank
from search.errors import InputError
from search.records.directory import CONTROLS, SETTINGS, SUMMARY, summary
from search.records.lineage import Event, Segment, ancestry, read_lineage, roots, stays
from search.records.tables import METRICS, MIXING, read_rows

Rows = dict[int, list[dict[str, Any]]]  # by member, each in the order of the rounds
Curve = list[tuple[int, float | None]]  # (step, value); None where a member failed


@dataclass(frozen=True)
class Control:
    """A run of the same budget that this one is judged by: see CONTROLS."""

    name: str
    rows: Rows
    summary: dict[str, Any]


@dataclass(frozen=True)
class Story:
    """What a report tells; a run that still goes on has told less."""

    configuration: str  # run.yaml as it stands
    settings: dict[str, Any]
    summary: dict[str, Any]
    events: list[Event]
    rows: Rows
    controls: Mapping[str, Control] = field(default_factory=dict)  # by folder
    mixtures: Sequence[dict[str, Any]] = ()  # a row a round, member and group, where members mix

    @property
    def name(self) -> str:
        return str(self.settings.get("name", "run"))

    @property
    def status(self) -> str:
        return str(self.summary.get("status", "running"))

    @property
    def unit(self) -> str:
        """What curves show: only a language model's score is known to be minus a loss."""
        return "validation loss" if self.settings.get("trainable", "decoder") == "decoder" else "score"

    @property
    def losses(self) -> bool:
        return self.unit != "score"

    def shown(self, score: float | None) -> float | None:
        """Return a score as the report shows it; None where a member failed."""
        known = finite(score)
        return known if known is None or not self.losses else -known

    @cached_property
    def domains(self) -> dict[str, dict[str, Any]]:
        """Every domain, also those of spaces within the space: `optimiser.rate` names such a one."""
        return {".".join(path): domain for path, domain in flat(self.settings.get("hyperparameters") or {})}

    @cached_property
    def hyperparameters(self) -> list[str]:
        """Names in the order of the configuration, then those that only the lineage knows."""
        seen = {name for event in self.events for name in event.after}
        return [*(name for name in self.domains if name in seen), *sorted(seen - set(self.domains))]

    @cached_property
    def groups(self) -> list[str]:
        names = {name for rows in self.rows.values() for row in rows for name in row}
        return sorted(name.removeprefix("loss_") for name in names if name.startswith("loss_"))

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

    def score_curve(self, segment: Segment) -> Curve:
        """Return the scores of one stay of weights, from the score that it began with."""
        curve = [(row["step"], self.shown(row["score"])) for row in self.rows_of(segment)]
        arrival = self._arrivals[segment.member, segment.from_round]
        return curve if arrival.parent is None else [(arrival.began, self.shown(arrival.parent_score)), *curve]

    def group_curve(self, path: Sequence[Segment], group: str) -> Curve:
        """Return the group's validation loss along a path."""
        return self.column_curve(path, f"loss_{group}")

    def column_curve(self, path: Sequence[Segment], column: str) -> Curve:
        rows = [row for segment in path for row in self.rows_of(segment)]
        return [(row["step"], finite(row.get(column))) for row in rows]

    def quantiles(self, column: str, at: Sequence[float]) -> list[Curve]:
        return quantiles(self.rows, column, at)

    def best_so_far(self, rows: Rows) -> Curve:
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
    events, rows = read_lineage(store), by_member(read_rows(store, METRICS))
    unknown = sorted(set(rows) - {event.member for event in events})
    if unknown:
        raise InputError(
            f"{store.uri}/{METRICS} names members without a start in the lineage: "
            f"{', '.join(map(str, unknown))}; the two must come from one run."
        )
    settings = yaml.safe_load(text) or {}
    paths = [path for path, _ in flat(settings.get("hyperparameters") or {}) if len(path) > 1]
    events = [
        event._replace(before=event.before and dotted(event.before, paths), after=dotted(event.after, paths))
        for event in events
    ]
    mixtures = read_rows(store, MIXING) if store.exists(MIXING) else []
    return Story(text, settings, summary(store), events, rows, read_controls(store), mixtures)


def read_controls(store: Store) -> dict[str, Control]:
    """Return the controls that have finished a round."""
    found = {}
    for folder, name in CONTROLS.items():
        if store.exists(f"{folder}/{METRICS}"):
            said = f"{folder}/{SUMMARY}"
            rows = by_member(read_rows(store, f"{folder}/{METRICS}"))
            found[folder] = Control(name, rows, dict(store.read_json(said)) if store.exists(said) else {})
    return found


def quantiles(rows: Rows, column: str, at: Sequence[float]) -> list[Curve]:
    """Return quantiles over the members that did not fail, one curve each."""
    values: dict[int, list[float]] = {}
    for row in sorted((row for member in rows.values() for row in member), key=lambda row: row["step"]):
        if (value := finite(row.get(column))) is not None:
            values.setdefault(row["step"], []).append(value)
    table = [(step, np.quantile(found, at)) for step, found in values.items()]
    return [[(step, float(found[place])) for step, found in table] for place in range(len(at))]


def by_member(rows: Iterable[dict[str, Any]]) -> Rows:
    found: Rows = {}
    for row in sorted(rows, key=lambda row: (row["member"], row["round"])):
        found.setdefault(row["member"], []).append(row)
    return found


def flat(domains: dict[str, Any], above: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the domains of a run's file by their paths; a space within the space has no kind."""
    for name, domain in domains.items():
        if isinstance(domain.get("kind"), str):
            yield (*above, name), domain
        else:
            yield from flat(domain, (*above, name))


def dotted(given: dict[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    """Return hyperparameters with those of spaces within by their whole names."""
    within = {path[0] for path in paths}
    kept = {name: value for name, value in given.items() if name not in within}
    return kept | {".".join(path): value_at(given, path) for path in paths}


def finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
