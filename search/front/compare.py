"""Several runs side by side: their scores, the settings in which they differ, and their curves in one page."""

from collections.abc import Sequence
from typing import Any

from shoal.cluster.storage import Store
from shoal.search.errors import InputError
from shoal.search.records.directory import flat_settings
from shoal.search.report.drawing import FAMILIES, WINNER, Figure, LegendEntry, Line, calm_axis, layout, trace
from shoal.search.report.page import document, grid, html_table, panel, section
from shoal.search.report.story import Story, finite, read_story
from shoal.search.report.write import decimal, duration

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


def curves(stories: dict[str, Story]) -> Figure:
    """Draw the best score that any member of each run had reached, over the steps."""
    each = {name: story.best_so_far(story.rows) for name, story in stories.items()}
    coloured = list(zip(each.items(), COLOURS_OF_RUNS, strict=False))
    data = [
        trace([Line(curve)], colour, 2.6, f"{name}<br>step %{{x}}: %{{y:.4f}}")
        for (name, curve), colour in coloured
    ]
    first = next(iter(stories.values()))
    y, note = calm_axis(list(each.values()), first.losses)
    legend = [LegendEntry("line", colour, name) for (name, _), colour in coloured]
    return Figure(data, layout(max(story.last_step for story in stories.values()), 420, y), legend, note)


def comparing_page(stories: dict[str, Story]) -> str:
    """Return the runs as one HTML page that opens offline."""
    units = {story.unit for story in stories.values()}
    if len(units) > 1:
        raise InputError(
            f"DIR: these runs are ranked by {' and by '.join(sorted(units))}, so they cannot be compared."
        )
    columns = ["", *stories]
    about = f"The best {units.pop()} that any member had reached."
    settings = setting_rows(stories) or [["none", *[""] * len(stories)]]
    return document(
        f"{', '.join(stories)} · Shoal",
        [
            f"<header><h1>{len(stories)} runs</h1></header>",
            section("Best so far", grid([panel("best", "Best so far", about, curves(stories), "h3")], "stack")),
            section("Results", html_table(columns, result_rows(stories))),
            section("Settings that differ", html_table(columns, settings)),
        ],
    )
