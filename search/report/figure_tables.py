"""The numbers of figures as tables, for readers who want them exactly, or cannot see a figure."""

import math
from collections.abc import Callable, Mapping

from shoal.search.report.drawing import LinePoints, Table
from shoal.search.report.story import StepValues, Story

MOST_ROWS = 60  # a longer run has evenly many steps in the table, and the last
MOST_COPIES = 300


def curve_table(curves: Mapping[str, LinePoints], show: Callable[[float], str] = "{:.4f}".format) -> Table:
    """Return curves as a table with a row for each step, or for evenly many of them and the last."""
    values = {name: dict(points) for name, points in curves.items()}
    steps = sorted({step for points in values.values() for step in points})
    stride = max(1, math.ceil(len(steps) / MOST_ROWS))
    kept = steps[::-1][::stride][::-1]
    rows = [[f"{step:g}", *(shown_cell(points.get(step), show) for points in values.values())] for step in kept]
    return Table(["step", *curves], rows, len(steps) - len(kept))


def shown_cell(value: float | None, show: Callable[[float], str]) -> str:
    return "" if value is None or not math.isfinite(value) else show(value)


def score_table(story: Story, winner: StepValues) -> Table:
    worst, median, best = story.quantiles("score", (0.0, 0.5, 1.0))
    curves = {"best": best, "median": median, "worst": worst}
    shown = {name: [(step, story.shown(value)) for step, value in curve] for name, curve in curves.items()}
    return curve_table({"the winner's weights": winner, **shown})


def copy_table(story: Story) -> Table:
    """Return the newest copies, oldest of them first."""
    rows = [
        [
            str(copy.step),
            str(copy.member),
            f"member {copy.parent}",
            *(shown_cell(story.shown(score), "{:.4f}".format) for score in (copy.score, copy.parent_score)),
        ]
        for copy in sorted(story.copies, key=lambda copy: copy.step)
    ]
    columns = ["step", "member", "copied", f"its {story.unit}", "that of the copied"]
    return Table(columns, rows[-MOST_COPIES:], max(0, len(rows) - MOST_COPIES))
