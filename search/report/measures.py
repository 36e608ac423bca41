"""What a class measures beside its losses, and what the best member came to on the test rows."""

from typing import Any

from shoal.search.report.figures import GROUP_LEGEND, measure_figure
from shoal.search.report.page import grid, html_legend, panel, section
from shoal.search.report.story import Story
from shoal.search.report.wording import decimal


def measures(story: Story) -> str:
    """Return a figure for each thing that the members' class measures beside its losses."""
    tested = story.summary.get("test_measures") or {}
    figures = []
    for place, name in enumerate(story.measures):
        value = decimal(tested.get(name))
        about = f"{value} on the test rows, of the winner" if value else ""
        figures.append(panel(f"measure-{place}", name, about, measure_figure(story, name), "h3"))
    return section("Measures", html_legend(GROUP_LEGEND), grid(figures)) if figures else ""


def errors_of(said: dict[str, Any]) -> dict[str, float]:
    """Return the standard errors over rows of what `tests_of` has, by name, as far as they are known."""
    return {f"loss, {group}": error for group, error in (said.get("test_error") or {}).items()}


def tests_of(story: Story, said: dict[str, Any]) -> dict[str, float]:
    """Return what a run's best member came to on the rows of the test split, by name."""
    score = {} if story.losses or said.get("test_score") is None else {story.unit: said["test_score"]}
    losses = {f"loss, {group}": loss for group, loss in (said.get("test_loss") or {}).items()}
    return score | losses | (said.get("test_measures") or {})
