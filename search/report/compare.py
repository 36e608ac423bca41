"""Several runs side by side: their scores, the settings in which they differ, and their curves in one page."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any

from shoal.cluster.storage import Store
from shoal.search.errors import InputError
from shoal.search.records.directory import flat_settings
from shoal.search.report.drawing import (
    FAMILIES,
    WINNER,
    Figure,
    LegendEntry,
    Line,
    calm_axis,
    layout,
    number_axis,
    trace,
)
from shoal.search.report.figure_tables import curve_table
from shoal.search.report.page import document, grid, html_table, panel, section
from shoal.search.report.story import StepValues, Story, finite, read_story
from shoal.search.report.wording import decimal, duration
from shoal.search.report.write import outcome_sentences

COLOURS_OF_RUNS = (WINNER, *FAMILIES)
OWN_SETTINGS = {"name", "directory", "code", "format", "data.content", "data.corpus"}  # may always differ
MOST_RUNS = len(COLOURS_OF_RUNS)


def read_stories(places: Sequence[str]) -> dict[str, Story]:
    """Return each run by a name that tells it from the others; raises InputError for what is no begun run."""
    if not 2 <= len(places) <= MOST_RUNS:
        raise InputError(f"DIR: two to {MOST_RUNS} run directories can be compared, got {len(places)}.")
    stories = [read_story(Store(place)) for place in places]
    names = [story.name for story in stories]
    same = len(set(names)) < len(names)
    return {place if same else name: story for place, name, story in zip(places, names, stories, strict=True)}


def write_comparison(places: Sequence[str], to: str) -> str:
    """Write runs side by side as one HTML page, and return its place."""
    page = comparing_page(read_stories(places))
    with open(to, "w", encoding="utf-8") as file:
        file.write(page)
    return os.path.abspath(to)


def result_rows(stories: dict[str, Story]) -> list[list[str]]:
    """Return the rows of a table with a column for each run: its result, and what it cost."""
    rows = [
        ["status", *(story.status for story in stories.values())],
        ["best", *(f"{decimal(best_of(story))} {story.unit}" for story in stories.values())],
    ]
    groups = dict.fromkeys(
        group for story in stories.values() for group in story.summary.get("test_loss") or {}
    )
    rows += [
        [f"test loss, {group}", *(test_loss(story, group) for story in stories.values())] for group in groups
    ]
    rows += [
        ["member", *(str(story.winner) for story in stories.values())],
        ["steps", *(str(story.last_step) for story in stories.values())],
        ["exploits", *(str(len(story.copies)) for story in stories.values())],
        ["wall time", *(wall_time(story) for story in stories.values())],
    ]
    return rows


def best_of(story: Story) -> float | None:
    return story.shown(story.last_scores[story.winner])


def test_loss(story: Story, group: str) -> str:
    return decimal((story.summary.get("test_loss") or {}).get(group))


def wall_time(story: Story) -> str:
    seconds = finite(story.summary.get("wall_seconds"))
    return "" if seconds is None else duration(seconds)


def setting_rows(stories: dict[str, Story]) -> list[list[str]]:
    """Return a row for each setting in which the runs differ; a cell is empty where a run has no such key."""
    flat = [flat_settings(story.settings) for story in stories.values()]
    keys = dict.fromkeys(key for each in flat for key in each)
    found = []
    for key in keys:
        cells = ["" if key not in each else plain_cell(each[key]) for each in flat]
        if len(set(cells)) > 1 and key not in OWN_SETTINGS:
            found.append([key, *cells])
    return found


def plain_cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def curves(stories: dict[str, Story], of: Callable[[Story], StepValues], height: int = 260) -> Figure:
    """Draw one curve of each run over the steps; a run that has none is left out."""
    found = {name: of(story) for name, story in stories.items()}
    coloured = [(name, found[name], colour) for name, colour in zip(found, COLOURS_OF_RUNS, strict=False)]
    data = [
        trace([Line(curve)], colour, 2.6, f"{escape(name)}<br>step %{{x}}: %{{y:.4g}}")
        for name, curve, colour in coloured
        if curve
    ]
    first = next(iter(stories.values()))
    y, note = calm_axis(list(found.values()), first.losses)
    drawn = layout(max(story.last_step for story in stories.values()), height, y)
    return Figure(data, drawn, legend_of(stories), note, curve_table(found, "{:.4g}".format))


def legend_of(stories: dict[str, Story]) -> list[LegendEntry]:
    return [LegendEntry("line", colour, name) for name, colour in zip(stories, COLOURS_OF_RUNS, strict=False)]


def group_panels(stories: dict[str, Story]) -> list[str]:
    """Return the loss of each group along the winner's weights, of all runs in one figure."""
    groups = dict.fromkeys(group for story in stories.values() for group in story.groups)
    return [
        panel(f"group-{place}", group, "", curves(stories, partial(winner_curve, column=f"loss_{group}")), "h3")
        for place, group in enumerate(groups)
    ]


def winner_curve(story: Story, column: str) -> StepValues:
    return [(step, value) for step, value in story.column_curve(story.path, column) if value is not None]


def schedule_panels(stories: dict[str, Story]) -> list[str]:
    """Return each hyperparameter along the winner's weights, of all runs in one figure, if it is a number."""
    names = dict.fromkeys(name for story in stories.values() for name in story.hyperparameters)
    found = []
    for place, name in enumerate(names):
        each = {run: winner_settings(story, name) for run, story in stories.items()}
        if any(each.values()):
            found.append(panel(f"schedule-{place}", name, "", schedules_beside(stories, name, each), "h3"))
    return found


def winner_settings(story: Story, name: str) -> StepValues:
    """Return a hyperparameter's number at both ends of each stretch of the winner's lineage."""
    points: StepValues = []
    for segment in story.path:
        value = segment.hyperparameters.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            points += [(segment.from_step, float(value)), (story.until(segment), float(value))]
    return points


def schedules_beside(stories: dict[str, Story], name: str, each: dict[str, StepValues]) -> Figure:
    data = [
        trace([Line(points)], colour, 2.6, f"{escape(run)}<br>step %{{x}}: %{{y:.4g}}")
        for (run, points), colour in zip(each.items(), COLOURS_OF_RUNS, strict=False)
        if points
    ]
    domain = next((story.domains[name] for story in stories.values() if name in story.domains), {})
    values = [value for points in each.values() for _, value in points if value is not None]
    drawn = layout(max(story.last_step for story in stories.values()), 230, number_axis(values, domain))
    return Figure(data, drawn, legend_of(stories), table=curve_table(each, "{:.4g}".format))


def comparing_page(stories: dict[str, Story]) -> str:
    """Return the runs side by side as one HTML page that opens offline."""
    units = {story.unit for story in stories.values()}
    if len(units) > 1:
        raise InputError(
            f"DIR: these runs are ranked by {' and by '.join(sorted(units))}, so they cannot be compared."
        )
    columns = ["", *stories]
    about = f"The best {units.pop()} that any member had reached."
    best = curves(stories, lambda story: story.best_so_far(story.rows), 420)
    settings = setting_rows(stories) or [["none", *[""] * len(stories)]]
    groups, schedules = group_panels(stories), schedule_panels(stories)
    return document(
        f"{', '.join(stories)} · Shoal",
        [
            f"<header><h1>{len(stories)} runs</h1></header>",
            section("Best so far", grid([panel("best", "Best so far", about, best, "h3")], "stack")),
            section("Results", html_table(columns, result_rows(stories), label="Results")),
            section("Settings that differ", html_table(columns, settings, label="Settings that differ")),
            section("Validation loss by group, of the winner's weights", grid(groups)) if groups else "",
            section("Schedules of the winners", grid(schedules)) if schedules else "",
            section("The runs", "".join(told(name, story) for name, story in stories.items())),
        ],
    )


def told(name: str, story: Story) -> str:
    """Return a run's outcome in words."""
    return f'<h3>{escape(name)}</h3><p class="soft">{outcome_sentences(story).rstrip(":")}</p>'
