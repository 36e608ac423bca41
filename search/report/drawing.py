"""The parts of the figures: lines, arrows and axes as plain Plotly values.

Lines of many members are joined into one trace with gaps, so that 64 members x 100 rounds are drawn fast.
The page sets the colours of text, grid and background, because it knows whether it is light or dark.
"""

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

# hues of Okabe and Ito's palette, changed until they are clear both on white and on near black
WINNER, WINNER_FAMILY, OTHER = "#d55e00", "rgba(213,94,0,0.5)", "#2b8cc4"
FAMILIES = (OTHER, "#009e73", "#cc79a7", "#b39a00", "#8c6bb1")
MEDIAN, FAINT, BAND = "#80848c", "rgba(128,132,140,0.5)", "rgba(128,132,140,0.16)"
LABEL_LENGTH = 18  # letters beside a categorical axis; a hover shows the whole label

Trace = dict[str, Any]
LinePoints = Sequence[tuple[float, float | None]]
Axis = dict[str, Any]


class LegendEntry(NamedTuple):
    """One line of a legend."""

    swatch: str  # "thick", "line", "dashed", "arrow", "band" or "cross"
    colour: str
    meaning: str


class Table(NamedTuple):
    """What a figure shows, for readers who want numbers, or cannot see it."""

    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    left_out: int = 0  # rows that the figure has and the table has not


class Figure(NamedTuple):
    """What Plotly draws, with the legend, the note and the table that the page shows beside it."""

    data: list[Trace]
    layout: dict[str, Any]
    legend: list[LegendEntry]
    note: str = ""
    table: Table = Table()


class Line(NamedTuple):
    points: LinePoints
    label: str | int = ""  # a hover shows it at every point


def trace(lines: Sequence[Line], colour: str, width: float, hover: str, **style: Any) -> Trace:
    """Return one scatter trace of many lines; `hover` is a template with %{x}, %{y} and %{text}."""
    x, y, text = [], [], []
    for line in lines:
        x += [six_digits(step) for step, _ in line.points] + [None]
        y += [six_digits(value) for _, value in line.points] + [None]
        text += [line.label] * len(line.points) + [None]
    known = {
        "type": "scatter",
        "mode": "lines",
        "x": x[:-1],
        "y": y[:-1],
        "text": text[:-1],
        "hovertemplate": f"{hover}<extra></extra>",
        "showlegend": False,
    }
    return known | style | {"line": {"color": colour, "width": width} | style.get("line", {})}


def arrows(lines: Sequence[Line], colour: str, width: float, hover: str, size: float, **style: Any) -> Trace:
    """Return lines of two points, each with a head at its second."""
    sizes = [0, size, 0] * len(lines)
    # Plotly gives markers of several sizes a pale outline, unless its width is 0
    plain = {"color": colour, "opacity": 1, "line": {"width": 0}}
    marker = {"symbol": "arrow", "angleref": "previous", "size": sizes[:-1]} | plain
    return trace(lines, colour, width, hover, mode="lines+markers", marker=marker, **style)


def star(point: tuple[float, float | None], label: str | int, hover: str) -> Trace:
    marker = {"symbol": "star", "size": 15, "color": WINNER}
    return trace([Line([point], label)], WINNER, 1, hover, mode="markers", marker=marker, cliponaxis=False)


def layout(last_step: float, height: int, y: Axis) -> dict[str, Any]:
    """Return the layout that all figures share: steps below, values at the left."""
    return {
        "height": height,
        "margin": {"l": 34, "r": 18, "t": 12, "b": 44},
        "xaxis": {"title": {"text": "step", "standoff": 8}, "range": [0, last_step * 1.02]},
        "yaxis": y,
    }


def calm_axis(curves: Sequence[LinePoints], lower_is_better: bool) -> tuple[Axis, str]:
    """Return an axis on which values at the end of a run can be told apart, and a note of what it leaves out.

    The first fifth of the steps and the worst 2 % of the rest may lie off the axis, if the rest is then
    drawn at least twice as tall.
    """
    points = [(step, value) for curve in curves for step, value in curve if value is not None]
    if not points:
        return {}, ""
    steps, values = np.asarray(points, float).T
    values = values if lower_is_better else -values
    best, worst = values.min(), values.max()
    usual = np.quantile(values[steps >= steps.max() / 5], 0.98)
    edge = usual if worst - best > 2 * (usual - best) > 0 else worst
    room = 0.06 * (edge - best) or 0.05 * abs(best) or 0.05
    ends = [float(best - room), float(edge + room)]
    left_out = int((values > ends[1]).sum())
    note = f"{left_out} points lie off the axis; double-click to see all of it." if left_out else ""
    return {"range": ends if lower_is_better else [-ends[1], -ends[0]], "nticks": 6}, note


def number_axis(values: Sequence[float], domain: dict[str, Any]) -> Axis:
    """Return an axis over the values, and over the whole domain where its bounds are known."""
    ends = [*values, *(domain[end] for end in ("low", "high") if end in domain)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    if domain.get("log") and low > 0:
        ticks = log_ticks(low, high)
        low, high = math.log10(low), math.log10(high)
        kind: Axis = {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    else:
        kind = {"nticks": 5}
    room = 0.08 * (high - low) or 0.5
    return kind | {"range": [low - room, high + room]}


def category_axis(labels: Sequence[str]) -> Axis:
    """Return an axis with one place for each label, the first lowest."""
    cut = [label if len(label) <= LABEL_LENGTH else f"{label[: LABEL_LENGTH - 1]}…" for label in labels]
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": [escape(label) for label in cut],
        "range": [-0.6, len(labels) - 0.4],
    }


def log_ticks(low: float, high: float) -> list[float]:
    """Return three to seven round numbers between two bounds, or the bounds if there are none."""
    decades = math.log10(high / low)
    leads = (1, 2, 5) if decades < 1.5 else (1, 3) if decades < 2.5 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    stride = max(1, math.ceil(decades / 6))
    ticks = [float(f"{lead}e{power}") for power in powers if power % stride == 0 for lead in leads]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001] or [low, high]


def six_digits(value: float | None) -> float | None:
    """Return a value with six digits, as many as a screen can show; None if there is nothing to draw."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")


def readable_value(value: Any) -> str:
    """Return a hyperparameter's value as text for a reader."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(readable_value, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def to_json(figure: Figure) -> str:
    """Return what Plotly draws as JSON, without a `<` that could end the page's script element."""
    plain = json.dumps({"data": figure.data, "layout": figure.layout}, allow_nan=False, separators=(",", ":"))
    return plain.replace("<", "\\u003c")
