"""A report's section on mixtures: proportions over the steps, effects of groups on one another, epochs."""

from typing import Any

import numpy as np

from shoal.search.report.drawing import (
    FAMILIES,
    MEDIAN,
    WINNER,
    Axis,
    Figure,
    LegendEntry,
    Line,
    Table,
    layout,
    six_digits,
    trace,
)
from shoal.search.report.figure_tables import curve_table
from shoal.search.report.page import grid, html_legend, html_table, panel, section
from shoal.search.report.story import StepValues, Story, finite

COLOURS = (WINNER, *FAMILIES)


def mixing(story: Story) -> str:
    """Return the section; it is empty for a run without mixing policies."""
    if not story.mixtures:
        return ""
    groups = story.mixed_groups
    colours = {group: COLOURS[place % len(COLOURS)] for place, group in enumerate(groups)}
    keys = [LegendEntry("thick", colour, group) for group, colour in colours.items()]
    keys.append(LegendEntry("band", MEDIAN, "middle half of the members"))
    about = (
        "The share of each group in the winner's training, outside of probes: its share of the rows, or of the "
        "loss where a policy weighs losses."
    )
    figures = [panel("mixture", "Proportions", about, proportions_figure(story, colours), "h3")]
    if any(row["effects"] for row in latest_mixture(story)):
        told = "How much a step on one group alone lowers each validation loss, in thousandths of a nat."
        figures.append(panel("effects", "Effects of groups", told, effects(story), "h3"))
    columns = ["group", "share", "rows", "tokens", "epochs", "validation loss", "test loss"]
    return section(
        "Mixture",
        accounts(story),
        html_legend(keys),
        grid(figures, "pair"),
        html_table(columns, of_groups(story), label="Groups"),
    )


def latest_mixture(story: Story) -> list[dict[str, Any]]:
    """Return the last recorded rows of the winner's mixture, one for each group."""
    rows = [row for row in story.mixtures if row["member"] == story.winner]
    last = max(row["round"] for row in rows)
    return [row for row in rows if row["round"] == last]


def accounts(story: Story) -> str:
    row = latest_mixture(story)[0]
    said = f"; its last round: {row['decision']}" if row["decision"] else ""
    extra = f" Its policy's reference took {row['extra_steps']} more steps." if row["extra_steps"] else ""
    stacked = any(each["stacked"] for each in story.rows[story.winner])
    return (
        f'<p class="soft">The winner\'s policy took {row["probe_steps"]} probe steps, which count as '
        f"training, and {row['evaluations']} evaluation passes{said}.{extra} Members trained "
        f"{'as one stacked model' if stacked else 'one by one'}.</p>"
    )


def proportions_figure(story: Story, colours: dict[str, str]) -> Figure:
    """Draw each group's share along the winning lineage, in front of the middle half of all members."""
    nothing = {"line": {"width": 0}, "hoverinfo": "skip"}
    data = []
    for group, colour in colours.items():
        low, high = band(story, group)
        shade = faint(colour)
        data.append(trace([Line(low)], colour, 0, "", **nothing))
        data.append(trace([Line(high)], colour, 0, "", fill="tonexty", fillcolor=shade, **nothing))
    curves = {group: along_path(story, group) for group in colours}
    for group, colour in colours.items():
        data.append(trace([Line(curves[group])], colour, 2.8, f"{group}, step %{{x}}: %{{y:.3f}}"))
    drawn = layout(story.last_step, 300, {"range": [0, 1], "nticks": 6, "tickformat": ".0%"})
    return Figure(data, drawn, [], table=curve_table(curves, "{:.1%}".format))


def along_path(story: Story, group: str) -> StepValues:
    """Return the group's share at each ready point along the winning lineage."""
    shares = {
        (row["member"], row["round"]): row["proportion"] for row in story.mixtures if row["group"] == group
    }
    return [
        (row["step"], finite(shares.get((row["member"], row["round"]))))
        for segment in story.path
        for row in story.rows_of(segment)
    ]


def band(story: Story, group: str) -> tuple[StepValues, StepValues]:
    by_step: dict[int, list[float]] = {}
    for row in story.mixtures:
        if row["group"] == group:
            by_step.setdefault(row["step"], []).append(row["proportion"])
    found = [(step, np.quantile(values, (0.25, 0.75))) for step, values in sorted(by_step.items())]
    return [(step, float(ends[0])) for step, ends in found], [(step, float(ends[1])) for step, ends in found]


def faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"


def effects(story: Story) -> Figure:
    """Draw the matrix A with its standard errors: a column is a trained group, a row is a judged one."""
    rows = [row for row in latest_mixture(story) if row["effects"]]
    names = [row["group"] for row in rows]
    # a recorded row is a trained group, but a drawn row is a judged one
    values = np.array([row["effects"] for row in rows]).T * 1000
    errors = np.array([row["errors"] for row in rows]).T * 1000
    judged = (story.settings.get("mixing") or {}).get("unseen") or names
    most = float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0
    heat: dict[str, Any] = {
        "type": "heatmap",
        "x": names,
        "y": judged,
        "z": [[six_digits(value) for value in line] for line in values.tolist()],
        "text": [
            [
                f"{value:.2g} ± " + (f"{error:.1g}" if np.isfinite(error) else "?")
                for value, error in zip(*pair, strict=True)
            ]
            for pair in zip(values.tolist(), errors.tolist(), strict=True)
        ],
        "texttemplate": "%{text}",
        "hovertemplate": "training on %{x} lowers the loss of %{y} by %{text}<extra></extra>",
        "colorscale": [[0, "#2b8cc4"], [0.5, "rgba(128,132,140,0.12)"], [1, WINNER]],
        "zmin": -most,
        "zmax": most,
        "showscale": False,
    }
    trained: Axis = {"title": {"text": "trained", "standoff": 8}, "showgrid": False}
    drawn = layout(1, 300, {"autorange": "reversed", "showgrid": False, "automargin": True})
    table = Table(
        ["lowers the loss of", *(f"training on {name}" for name in names)],
        [[name, *line] for name, line in zip(judged, heat["text"], strict=True)],
    )
    return Figure([heat], drawn | {"xaxis": trained}, [], table=table)


def of_groups(story: Story) -> list[list[str]]:
    length = int((story.settings.get("data") or {}).get("sequence_length", 0))
    test, last = story.summary.get("test_loss") or {}, story.rows[story.winner][-1]
    return [
        [
            row["group"],
            f"{row['proportion']:.1%}",
            f"{row['seen']:,}",
            f"{row['seen'] * length:,}",
            f"{row['seen'] / row['rows']:.2f}",
            number(last.get(f"loss_{row['group']}")),
            number(test.get(row["group"])),
        ]
        for row in latest_mixture(story)
    ]


def number(value: float | None) -> str:
    known = finite(value)
    return "" if known is None else f"{known:.4f}"
