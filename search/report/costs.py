"""The loss of each member over its cost, where settings trade one for the other, and the front of the two."""

from typing import NamedTuple

from shoal.policies.pareto import front
from shoal.search.report.drawing import (
    OTHER,
    WINNER,
    Figure,
    LegendEntry,
    Line,
    Table,
    calm_axis,
    number_axis,
    readable_value,
    trace,
)
from shoal.search.report.page import grid, panel, section
from shoal.search.report.search_figures import plain_layout
from shoal.search.report.story import Story, finite

RANKED_BY_LOSS = "minus "  # how a run with a price names the loss that ranks its members


class Priced(NamedTuple):
    """A member at its last report."""

    member: int
    cost: float
    score: float  # without the price
    kept: bool = False  # no other member is both better and cheaper


def costs(story: Story) -> str:
    """Return the section of a run whose members have costs, else nothing."""
    points = members_with_costs(story)
    if not points:
        return ""
    about = "Each member at its last report. Costs are shares of the dearest settings; no time is saved here."
    figure = panel("costs", f"{unpriced(story).capitalize()} over cost", about, cost_figure(story, points))
    return section("What it costs", grid([figure]))


def members_with_costs(story: Story) -> list[Priced]:
    """Return the members that did not fail, cheapest first; the scores are those without a price."""
    price = float(story.settings.get("price") or 0.0)
    found = []
    for member, rows in story.rows.items():
        cost, score = finite(rows[-1].get("cost")), finite(rows[-1]["score"])
        if cost is not None and score is not None:
            found.append(Priced(member, cost, score + price * cost))
    if not found:
        return []
    kept = front([point.score for point in found], [point.cost for point in found])
    each = [point._replace(kept=bool(one)) for point, one in zip(found, kept, strict=True)]
    return sorted(each, key=lambda point: (point.cost, -point.score))


def by_loss(story: Story) -> bool:
    return story.losses or story.unit.startswith(RANKED_BY_LOSS)


def unpriced(story: Story) -> str:
    """Return what ranks members, without the words of the price."""
    return story.unit.removeprefix(RANKED_BY_LOSS).partition(", less")[0]


def cost_figure(story: Story, points: list[Priced]) -> Figure:
    sign = -1 if by_loss(story) else 1
    drawn = {
        point.member: Line([(point.cost, sign * point.score)], f"member {point.member}") for point in points
    }
    hover = f"%{{text}}<br>cost %{{x:.3g}}<br>{unpriced(story)} %{{y:.4f}}"
    others = [drawn[point.member] for point in points if not point.kept]
    best = Line([(point.cost, sign * point.score) for point in points if point.kept], "on the front")
    data = [
        trace(others, OTHER, 1, hover, mode="markers", marker={"size": 8, "color": OTHER}),
        trace([best], WINNER, 2, hover, mode="lines+markers", marker={"size": 9, "color": WINNER}),
    ]
    y, note = calm_axis([line.points for line in drawn.values()], by_loss(story))
    x = number_axis([point.cost for point in points], {}) | {"title": {"text": "cost", "standoff": 8}}
    legend = [
        LegendEntry("thick", WINNER, "the front: nobody is both better and cheaper"),
        LegendEntry("line", OTHER, "members"),
    ]
    return Figure(data, plain_layout(300, x, y), legend, note, cost_table(story, points, sign))


def cost_table(story: Story, points: list[Priced], sign: int) -> Table:
    names = story.hyperparameters
    rows = [
        [
            str(point.member),
            f"{point.cost:.4g}",
            f"{sign * point.score:.4f}",
            "yes" if point.kept else "",
            *(readable_value(story.path_of(point.member)[-1].hyperparameters.get(name, "")) for name in names),
        ]
        for point in points
    ]
    return Table(["member", "cost", unpriced(story), "on the front", *names], rows)
