"""The report's figures for a notebook."""

from plotly.graph_objects import Figure as PlotlyFigure

from shoal.cluster.storage import Store
from shoal.search.report.drawing import Figure
from shoal.search.report.figures import genealogy, group_loss, kept_rows, schedule_figure, scores
from shoal.search.report.mixtures import COLOURS, proportions_figure
from shoal.search.report.story import Story, read_story


def figures_of(store: Store) -> dict[str, PlotlyFigure]:
    """Return the figures of a run by name; a figure of a hyperparameter or a group has its name after a dot."""
    return {name: as_plotly(name, figure) for name, figure in figures_by_name(read_story(store)).items()}


def figures_by_name(story: Story) -> dict[str, Figure]:
    found = {"scores": scores(story), "genealogy": genealogy(story)}
    found |= {f"schedule.{name}": schedule_figure(story, name) for name in story.hyperparameters}
    found |= {f"loss.{group}": group_loss(story, group) for group in story.groups}
    if story.mixtures:
        colours = {group: COLOURS[place % len(COLOURS)] for place, group in enumerate(story.mixed_groups)}
        found["mixture"] = proportions_figure(story, colours)
    if story.quantiles("kept", (0.5,))[0]:
        found["kept"] = kept_rows(story)
    return found


def as_plotly(name: str, figure: Figure) -> PlotlyFigure:
    made = PlotlyFigure(data=figure.data, layout=figure.layout)
    return made.update_layout(title=name, template="plotly_white", showlegend=False)
