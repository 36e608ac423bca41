"""The figures of a search without exploits: the score over each hyperparameter, and all hyperparameters."""

from html import escape
from typing import Any

import numpy as np

from shoal.search.report.drawing import (
    FAINT,
    OTHER,
    WINNER,
    Axis,
    Figure,
    LegendEntry,
    Line,
    Table,
    calm_axis,
    category_axis,
    number_axis,
    readable_value,
    trace,
)
from shoal.search.report.figures import HEIGHT, categories
from shoal.search.report.page import grid, html_table, panel, section
from shoal.search.report.story import Story, finite

GOOD_SHARE = 4  # the best quarter of the members is drawn in colour


def searched(story: Story) -> list[str]:
    """Return the hyperparameters that differ between members of a run without exploits, else nothing."""
    exploit = (story.settings.get("population") or {}).get("exploit") or {}
    if exploit not in ("none", {"kind": "none"}) or story.copies or len(story.rows) < 2:
        return []
    starts = [story.path_of(member)[0].hyperparameters for member in story.ranking]
    return [name for name in story.hyperparameters if len({repr(start.get(name)) for start in starts}) > 1]


def slices(story: Story) -> str:
    """Return the section with the last score over each hyperparameter; empty for a run with copies."""
    names = searched(story)
    if not names:
        return ""
    figures = [
        panel(f"slice-{place}", name, "", slice_figure(story, name), "h3") for place, name in enumerate(names)
    ]
    made = member_table(story)
    table = html_table(made.columns, made.rows, 0, "Members, their values and scores")
    whole = f"<details><summary>The same as a table</summary>{table}</details>"
    return section(f"{story.unit.capitalize()} over each hyperparameter", grid(figures), whole)


def member_table(story: Story) -> Table:
    """Return each member's searched values and its last score, best first."""
    names = searched(story)
    rows = [
        [
            str(member),
            *(readable_value(value_at_start(story, member, name)) for name in names),
            score_cell(story, member),
        ]
        for member in story.ranking
    ]
    return Table(["member", *names, story.unit], rows)


def value_at_start(story: Story, member: int, name: str) -> Any:
    return story.path_of(member)[0].hyperparameters.get(name)


def score_cell(story: Story, member: int) -> str:
    value = story.shown(story.last_scores[member])
    return "failed" if value is None else f"{value:.4f}"


def slice_figure(story: Story, name: str) -> Figure:
    """Draw a point for each member: its value of one hyperparameter, and its last score."""
    labels = categories(story, name)
    points = []
    for member in story.ranking:
        value, score = value_at_start(story, member, name), story.shown(story.last_scores[member])
        place = finite(value) if labels is None else float(labels.index(readable_value(value)))
        if place is not None:
            points.append(Line([(place, score)], f"member {member}: {escape(readable_value(value))}"))
    best, others = points[:1], points[1:]
    hover = f"%{{text}}<br>{story.unit} %{{y:.4f}}"
    data = [
        trace(others, OTHER, 1, hover, mode="markers", marker={"size": 8, "color": OTHER}),
        trace(best, WINNER, 1, hover, mode="markers", marker={"size": 14, "color": WINNER, "symbol": "star"}),
    ]
    y, note = calm_axis([line.points for line in points], story.losses)
    values = [place for line in points for place, _ in line.points]
    x = number_axis(values, story.domains.get(name, {})) if labels is None else category_axis(labels)
    return Figure(data, plain_layout(230, {**x, "title": {"text": name, "standoff": 8}}, y), [], note)


def parallel_figure(story: Story) -> Figure:
    """Draw a line for each member through its values of all hyperparameters and its last score.

    Each axis goes from the least to the largest value that occurs, or in the order of a domain's values.
    """
    names = searched(story)
    columns = [axis_places(story, name) for name in names]
    finals = {member: story.shown(story.last_scores[member]) for member in story.ranking}
    columns.append(
        spread_evenly({member: score for member, score in finals.items() if score is not None}, False)
    )
    good = story.ranking[: max(1, len(story.ranking) // GOOD_SHARE)]
    lines = {
        member: Line(
            [(float(place), column.get(member)) for place, column in enumerate(columns)],
            f"member {member}, {story.unit} {score_cell(story, member)}",
        )
        for member in story.ranking
    }
    data = [
        trace([lines[member] for member in story.ranking[len(good) :]], FAINT, 1.1, "%{text}"),
        trace([lines[member] for member in good[1:]], OTHER, 2, "%{text}"),
        trace([lines[good[0]]], WINNER, 3.2, "%{text}"),
    ]
    x = {
        "tickvals": list(range(len(columns))),
        "ticktext": [escape(name) for name in (*names, story.unit)],
        "range": [-0.2, len(columns) - 0.8],
        "showgrid": True,
    }
    y = {"tickvals": [0, 1], "ticktext": ["least", "largest"], "range": [-0.06, 1.06], "showgrid": False}
    legend = [LegendEntry("thick", WINNER, "the best member"), LegendEntry("line", FAINT, "members")]
    if len(good) > 1:
        legend.insert(1, LegendEntry("line", OTHER, "the best quarter"))
    return Figure(data, plain_layout(HEIGHT, x, y), legend, table=member_table(story))


def axis_places(story: Story, name: str) -> dict[int, float]:
    """Return the place of each member's value between 0 and 1."""
    labels = categories(story, name)
    found = {member: value_at_start(story, member, name) for member in story.ranking}
    if labels is not None:
        return {
            member: labels.index(readable_value(value)) / max(len(labels) - 1, 1)
            for member, value in found.items()
        }
    numbers = {member: known for member, value in found.items() if (known := finite(value)) is not None}
    return spread_evenly(numbers, bool(story.domains.get(name, {}).get("log")))


def spread_evenly(values: dict[int, float], log: bool) -> dict[int, float]:
    if not values:
        return {}
    numbers = np.array(list(values.values()))
    numbers = np.log(numbers) if log and (numbers > 0).all() else numbers
    width = float(np.ptp(numbers)) or 1.0
    return {member: float((each - numbers.min()) / width) for member, each in zip(values, numbers, strict=True)}


def plain_layout(height: int, x: Axis, y: Axis) -> dict[str, Any]:
    """Return the layout of a figure that has no steps below."""
    return {"height": height, "margin": {"l": 44, "r": 18, "t": 12, "b": 44}, "xaxis": x, "yaxis": y}
