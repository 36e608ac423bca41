"""The figures of a report: scores, genealogy, schedules, losses by group, and the run without exploits."""

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from shoal.search.records.directory import STRATIFIED
from shoal.search.records.lineage import Event, Segment
from shoal.search.report.drawing import (
    BAND,
    FAINT,
    FAMILIES,
    MEDIAN,
    OTHER,
    WINNER,
    WINNER_FAMILY,
    Axis,
    Figure,
    LegendEntry,
    Line,
    Trace,
    arrows,
    calm_axis,
    category_axis,
    layout,
    number_axis,
    readable_value,
    star,
    trace,
)
from shoal.search.report.figure_tables import copy_table, curve_table, score_table
from shoal.search.report.story import Control, StepValues, Story, finite, quantiles

HEIGHT = 380
SCHEDULE_LEGEND = (
    LegendEntry("thick", WINNER, "settings that trained the winner's weights"),
    LegendEntry("line", FAINT, "settings of all members"),
)
GROUP_LEGEND = (
    LegendEntry("thick", WINNER, "the winner's weights"),
    LegendEntry("dashed", MEDIAN, "median of the members"),
    LegendEntry("band", MEDIAN, "middle half of the members"),
)
EQUAL_LEGEND = (*GROUP_LEGEND, LegendEntry("dashed", OTHER, "median of the same members in equal shares"))
EQUAL_HOVER = "median in equal shares, step %{x}: %{y:.4f}"
CROWDED = 300  # with more copies than this, their arrows are drawn thin


def scores(story: Story) -> Figure:
    """Draw every member's curve over the steps; a copy is a jump from its own score to its parent's."""
    others = [Line(story.score_curve(stay), member) for member, stay in each_stay(story)]
    jumps = [
        Line([(copy.step, story.shown(copy.score)), (copy.began, story.shown(copy.parent_score))], copy.member)
        for copy in story.copies
    ]
    winner = [point for segment in story.path for point in story.score_curve(segment)]
    hover = f"member %{{text}}<br>step %{{x}}<br>{story.unit} %{{y:.4f}}"
    data = [
        trace(others, FAINT, 0.7 if len(story.copies) > CROWDED else 1.2, hover),
        arrows(jumps, OTHER, 1, "member %{text} copied at step %{x}", size=7, opacity=arrow_opacity(story)),
        trace([Line(winner, story.winner)], WINNER, 3.2, "the winner's weights<br>step %{x}: %{y:.4f}"),
        star(winner[-1], story.winner, hover),
    ]
    legend = [LegendEntry("thick", WINNER, "the winner's weights, in whichever slot they were")]
    if len(story.rows) > 1:
        legend.append(LegendEntry("line", FAINT, "members"))
    if story.copies:
        legend.append(LegendEntry("arrow", OTHER, "a copy: from a member's own value to its parent's"))
    y, note = calm_axis([winner, *(line.points for line in others)], story.losses)
    drawn = layout(story.last_step, 420 if stacked(story) else HEIGHT, y)
    return Figure(data, drawn, legend, note, score_table(story, winner))


def genealogy(story: Story) -> Figure:
    """Draw one lane for each member slot; at a copy, weights go from the parent's lane to the child's."""
    lean = lean_of(story)
    colours = family_colours(story)
    lanes: dict[str, list[Line]] = {}
    moves: dict[str, list[Line]] = {}
    for member, stay in each_stay(story):
        colour = colours.get(story.roots[member, stay.from_round], FAINT)
        points = lane(story, stay, lean)
        lanes.setdefault(colour, []).append(Line(points, stay_label(story, stay)))
    for copy in story.copies:
        assert copy.parent is not None
        colour = colours.get(story.roots[copy.member, copy.round], FAINT)
        move = Line([(copy.began, copy.parent), (copy.began + lean, copy.member)], copy_label(story, copy))
        moves.setdefault(colour, []).append(move)
    width, opacity = (0.7, 0.45) if len(story.copies) > CROWDED else (1.3, 0.9)
    data = [trace(lines, colour, 2.2, "%{text}", opacity=0.85) for colour, lines in lanes.items()]
    data.append(failures(story))
    data += [
        arrows(lines, colour, width, "%{text}", size=9, opacity=opacity) for colour, lines in moves.items()
    ]
    winner = [point for segment in story.path for point in lane(story, segment, lean)]
    data.append(trace([Line(winner, f"the weights of the winner, {story.winner}")], WINNER, 5, "%{text}"))
    data.append(star(winner[-1], stay_label(story, story.path[-1]), "%{text}"))
    drawn = layout(story.last_step, max(HEIGHT, 14 * len(story.stays) + 60), lane_axis(story))
    if story.copies and max(copy.began for copy in story.copies) == story.last_step:
        drawn["xaxis"]["range"][1] += lean
    return Figure(data, drawn, genealogy_legend(story, colours), table=copy_table(story))


def schedule_figure(story: Story, name: str) -> Figure:
    """Draw the values of one hyperparameter along the winning lineage, in front of those of all members."""
    labels = categories(story, name)
    place: Callable[[Any], float | None] = (
        finite if labels is None else lambda value: labels.index(readable_value(value))
    )
    everyone = [
        Line(
            held(story, stay, name, place),
            f"member {member}: {escape(readable_value(stay.hyperparameters.get(name)))}",
        )
        for member, stay in each_stay(story)
    ]
    winner = [
        Line(held(story, segment, name, place), escape(readable_value(segment.hyperparameters.get(name))))
        for segment in story.path
    ]
    whole = Line([point for line in winner for point in line.points])
    starts = [line._replace(points=line.points[:1]) for line in winner]
    steps = {"line": {"shape": "hv"}}
    marks = {"mode": "markers", "marker": {"size": 7, "color": WINNER}}
    data = [
        trace(everyone, FAINT, 1.1, "%{text}", **steps),
        trace([whole], WINNER, 3.2, "", hoverinfo="skip", **steps),
        trace(starts, WINNER, 1, "%{text} from step %{x}", cliponaxis=False, **marks),
    ]
    if labels is not None:
        return Figure(data, layout(story.last_step, max(230, 24 * len(labels) + 80), category_axis(labels)), [])
    values = [y for line in [*everyone, *winner] for _, y in line.points if y is not None]
    y = number_axis(values, story.domains.get(name, {}))
    return Figure(data, layout(story.last_step, 230, y), [])


def group_loss(story: Story, group: str) -> Figure:
    """Draw one group's validation loss: the winner's weights, and the population's median and middle half."""
    column, control = f"loss_{group}", story.controls.get(STRATIFIED)
    equal = quantiles(control.rows, column, (0.5,))[0] if control else None
    return against_members(story, column, story.losses, equal)


def measure_figure(story: Story, name: str) -> Figure:
    """Draw something that the members' class measures beside its losses."""
    return against_members(story, name, False)


def kept_rows(story: Story) -> Figure:
    """Draw the share of the training rows that the running epochs keep."""
    return against_members(story, "kept", False)


def against_members(story: Story, column: str, losses: bool, equal: StepValues | None = None) -> Figure:
    """Draw a column of the metrics along the winner's weights, and the population's median and middle half.

    `equal` is the median of the members that trained on equal shares of all groups, if there is such a control.
    """
    low, median, high = story.quantiles(column, (0.25, 0.5, 0.75))
    winner = story.column_curve(story.path, column)
    nothing = {"line": {"width": 0}, "hoverinfo": "skip"}
    data = [
        trace([Line(low)], MEDIAN, 0, "", **nothing),
        trace([Line(high)], MEDIAN, 0, "", fill="tonexty", fillcolor=BAND, **nothing),
        trace([Line(median)], MEDIAN, 1.6, "median, step %{x}: %{y:.4f}", line={"dash": "dash"}),
        trace([Line(winner)], WINNER, 3.2, "winner, step %{x}: %{y:.4f}"),
    ]
    if equal:
        data.insert(3, trace([Line(equal)], OTHER, 1.6, EQUAL_HOVER, line={"dash": "dash"}))
    y, note = calm_axis([winner, low, high, *([equal] if equal else [])], losses)
    quarters = {"lower quarter": low, "median": median, "upper quarter": high}
    table = curve_table(
        {"the winner's weights": winner, **quarters, **({"equal shares": equal} if equal else {})}
    )
    return Figure(data, layout(story.last_step, 230, y), [], note, table)


def against_control(story: Story, control: Control) -> Figure:
    """Draw the best value that any member had reached, in this run and in the control."""
    ours, alone = story.best_so_far(story.rows), story.best_so_far(control.rows)
    data = [
        trace([Line(alone)], OTHER, 2.4, f"{control.name}<br>step %{{x}}: %{{y:.4f}}", line={"dash": "dash"}),
        trace([Line(ours)], WINNER, 3.2, "this run<br>step %{x}: %{y:.4f}"),
    ]
    y, note = calm_axis([ours, alone], story.losses)
    legend = [
        LegendEntry("thick", WINNER, "this run"),
        LegendEntry("dashed", OTHER, f"the same members {control.name}"),
    ]
    last = max(story.last_step, alone[-1][0])
    table = curve_table({"this run": ours, control.name: alone})
    return Figure(data, layout(last, 300, y), legend, note, table)


def each_stay(story: Story) -> Iterable[tuple[int, Segment]]:
    return ((member, stay) for member, stays in story.stays.items() for stay in stays)


def lean_of(story: Story) -> float:
    """Return by how many steps a copy's arrow leans to the right, so that copies of one round stay apart."""
    return 0.45 * min(after - before for before, after in zip([0, *story.steps], story.steps, strict=False))


def lane(story: Story, stay: Segment, lean: float) -> list[tuple[float, float | None]]:
    began = stay.from_step + (lean if stay.from_round else 0)
    return [(began, stay.member), (max(began, story.until(stay)), stay.member)]


def failures(story: Story) -> Trace:
    """Return a cross at each step where a member's score was not finite."""
    crosses = [
        Line([(step, member)], f"member {member} failed: no finite score at step {step}")
        for member, step in failed_steps(story)
    ]
    marker = {"symbol": "x", "size": 7, "color": MEDIAN}
    return trace(crosses, MEDIAN, 1, "%{text}", mode="markers", marker=marker)


def failed_steps(story: Story) -> list[tuple[int, int]]:
    return [
        (member, row["step"])
        for member, rows in story.rows.items()
        for row in rows
        if finite(row["score"]) is None
    ]


def lane_axis(story: Story) -> Axis:
    members, on_path = list(story.stays), {segment.member for segment in story.path}
    every = -(-len(members) // 32)
    named = [member for place, member in enumerate(members) if place % every == 0]
    return {
        "range": [max(members) + 0.7, min(members) - 0.7],
        "tickvals": named,
        "ticktext": [f"<b>{member}</b>" if member in on_path else str(member) for member in named],
        "showgrid": False,
    }


def stacked(story: Story) -> bool:
    """Say whether the genealogy has so many lanes that it needs the page's whole width."""
    return len(story.stays) > 16


def genealogy_legend(story: Story, colours: dict[int, str]) -> list[LegendEntry]:
    keys = [LegendEntry("thick", WINNER, f"the winner's weights, ending in member {story.winner} ★")]
    if story.copies:
        keys += [LegendEntry("line", colour, f"began in member {root}") for root, colour in colours.items()]
    if len(story.stays) > len(colours):
        keys.append(
            LegendEntry("line", FAINT, "began elsewhere" if story.copies else "the others: nobody copied")
        )
    if story.copies:
        keys.append(LegendEntry("arrow", MEDIAN, "a copy, parent to child"))
    if failed_steps(story):
        keys.append(LegendEntry("cross", MEDIAN, "a failed member"))
    return keys


def family_colours(story: Story) -> dict[int, str]:
    """Return a colour for the winner's root, and for the copied roots whose weights trained the longest."""
    trained = dict.fromkeys(story.stays, 0)
    for member, stay in each_stay(story):
        trained[story.roots[member, stay.from_round]] += story.until(stay) - stay.from_step
    first = story.path[0].member
    copied = {story.roots[copy.member, copy.round] for copy in story.copies} - {first}
    longest = sorted(copied, key=lambda root: (-trained[root], root))
    return {first: WINNER_FAMILY, **dict(zip(longest, FAMILIES, strict=False))}


def arrow_opacity(story: Story) -> float:
    return 0.35 if len(story.copies) > CROWDED else 0.85


def stay_label(story: Story, stay: Segment) -> str:
    root = story.roots[stay.member, stay.from_round]
    return f"member {stay.member}, steps {stay.from_step} to {story.until(stay)}<br>began in member {root}"


def copy_label(story: Story, copy: Event) -> str:
    values = [story.shown(copy.score), story.shown(copy.parent_score)]
    own, parents = ("failed" if value is None else f"{value:.4f}" for value in values)
    return f"step {copy.step}: member {copy.member} ({own}) copied member {copy.parent} ({parents})"


def held(story: Story, stay: Segment, name: str, place: Callable[[Any], float | None]) -> StepValues:
    value = place(stay.hyperparameters.get(name))
    return [(stay.from_step, value), (story.until(stay), value)]


def categories(story: Story, name: str) -> list[str] | None:
    """Return the labels of a hyperparameter's axis, or None if the axis is one of numbers."""
    domain = story.domains.get(name, {})
    values = [stay.hyperparameters.get(name) for _, stay in each_stay(story)]
    if domain.get("kind") not in ("ordered", "categorical", "bool") and all(map(is_number, values)):
        return None
    given = [
        readable_value(value)
        for value in domain.get("values", [False, True] if domain.get("kind") == "bool" else [])
    ]
    return given + sorted({readable_value(value) for value in values} - set(given))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
