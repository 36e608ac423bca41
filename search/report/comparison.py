"""The report's part on a run's controls: the same members without exploits, or in equal shares."""

from typing import Any

from shoal.search.report.figures import against_control
from shoal.search.report.measures import errors_of, tests_of
from shoal.search.report.page import grid, html_table, panel, section
from shoal.search.report.story import Control, Story, finite
from shoal.search.report.wording import difference, duration, with_error


def comparison(story: Story) -> str:
    return "".join(control_section(story, folder, control) for folder, control in story.controls.items())


def control_section(story: Story, folder: str, control: Control) -> str:
    figure = panel(
        folder,
        "Best so far",
        f"The best {story.unit} that any member had reached.",
        against_control(story, control),
        "h3",
    )
    parts = [
        figure,
        html_table(
            ["", "this run", control.name, "difference"],
            comparison_rows(story, control),
            label=f"This run and the same members {control.name}",
        ),
    ]
    return section(f"Against the same members {control.name}", caught_up(story, control), grid(parts, "pair"))


def comparison_rows(story: Story, control: Control) -> list[list[str]]:
    ours, alone = story.summary, control.summary
    pairs = [(f"best {story.unit}", final(story, story.rows), final(story, control.rows))]
    tested, beside = tests_of(story, ours), tests_of(story, alone)
    pairs += [(f"test {name}", value, beside.get(name)) for name, value in tested.items()]
    errors = [{f"test {name}": error for name, error in errors_of(said).items()} for said in (ours, alone)]
    rows = [
        [name, with_error(a, errors[0].get(name)), with_error(b, errors[1].get(name)), difference(a, b)]
        for name, a, b in pairs
    ]
    rows.append(["exploits", str(ours.get("exploits", len(story.copies))), str(alone.get("exploits", 0)), ""])
    walls = [finite(said.get("wall_seconds")) for said in (ours, alone)]
    return [*rows, ["wall time", *("" if wall is None else duration(wall) for wall in walls), ""]]


def final(story: Story, rows: dict[int, list[dict[str, Any]]]) -> float | None:
    """Return the best score of the last round, with which a run ends."""
    found = [score for each in rows.values() if (score := finite(each[-1]["score"])) is not None]
    return story.shown(max(found)) if found else None


def caught_up(story: Story, control: Control) -> str:
    """Return a sentence that says at which step this run had reached the control's final value."""
    goal = final(story, control.rows)
    if goal is None:
        return ""
    sign = -1 if story.losses else 1
    last = max(rows[-1]["step"] for rows in control.rows.values())
    for step, value in story.best_so_far(story.rows):
        if value is not None and sign * value >= sign * goal and step < last:
            return (
                f'<p class="soft">This run had reached {goal:.4f} by step {step}; '
                f"{control.name} that took {last} steps.</p>"
            )
    return ""
