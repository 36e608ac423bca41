"""The report of a run of kind `stages`: what each stage reached, after the steps of all before it."""

import json
import re
from html import escape
from typing import NamedTuple

from shoal.cluster.storage import Store
from shoal.search.errors import InputError
from shoal.search.notation import read_yaml
from shoal.search.records.directory import SETTINGS, summary
from shoal.search.records.tables import METRICS
from shoal.search.report.compare import COLOURS_OF_RUNS, best_of, setting_rows, wall_time
from shoal.search.report.drawing import Figure, LegendEntry, Line, calm_axis, layout, trace
from shoal.search.report.figure_tables import curve_table
from shoal.search.report.page import document, grid, html_table, panel, section
from shoal.search.report.story import StepValues, Story, read_story
from shoal.search.report.wording import count, decimal, duration
from shoal.search.report.write import REPORT, outcome_sentences

SHOWN_OF_STAGES = ("stage", "members", "steps of each", "member-steps", "best", "began as", "wall time")


class ReachedStage(NamedTuple):
    """A stage that has finished a round."""

    name: str
    story: Story
    before: int  # member-steps of all stages before it

    @property
    def members(self) -> int:
        return len(self.story.rows)

    @property
    def curve(self) -> StepValues:
        """The best score so far, over the member-steps of all stages."""
        reached = self.story.best_so_far(self.story.rows)
        return [(self.before + step * self.members, value) for step, value in reached]

    @property
    def after(self) -> int:
        return self.before + self.story.last_step * self.members


def write_stages_report(store: Store) -> str:
    """Draw the stages of a run as one HTML file that opens offline; return where it is.

    Raises InputError if no stage has finished a round yet.
    """
    store.write(REPORT, stages_page(store))
    return f"{store.uri}/{REPORT}"


def stages_page(store: Store) -> str:
    settings = read_yaml(store.read(SETTINGS).decode(), f"{store.uri}/{SETTINGS}") or {}
    name, stages = str(settings.get("name", "run")), read_stages(store, settings.get("stages") or [])
    if not stages:
        raise InputError(f"{store.uri} has no stage yet that has finished a round.")
    stories = {stage.name: stage.story for stage in stages}
    differing = setting_rows(stories)
    table = html_table(SHOWN_OF_STAGES, [row_of_stage(stage) for stage in stages], label="Stages")
    status = str(summary(store).get("status", "running"))
    drawn = panel("stages", "Best so far, one stage after another", about(stages), stage_curves(stages))
    parts = [
        heading(name, status, stages, len(settings["stages"])),
        grid([drawn], "stack"),
        section("Stages", links(stages), table),
    ]
    if differing:
        table = html_table(["", *stories], differing, label="Settings that differ")
        parts.append(section("Settings that differ", table))
    return document(f"{name} · Shoal", parts)


def read_stages(store: Store, given: list[dict[str, object]]) -> list[ReachedStage]:
    """Return the stages that have begun, in their order."""
    found: list[ReachedStage] = []
    for each in given:
        place = Store(f"{store.uri}/{each['name']}")
        if place.exists(METRICS):
            found.append(ReachedStage(str(each["name"]), read_story(place), found[-1].after if found else 0))
    return found


def heading(name: str, status: str, stages: list[ReachedStage], planned: int) -> str:
    kind = status if status in ("done", "failed") else ""
    last = stages[-1]
    seconds = sum(stage.story.summary.get("wall_seconds") or 0.0 for stage in stages)
    cost = f"{len(stages)} of {planned} stages, {count(last.after)} member-steps, {duration(seconds)} in all."
    outcome = re.sub(":$", ".", outcome_sentences(last.story))
    return (
        f'<header><div class="title"><h1>{escape(name)}</h1>'
        f'<span class="status {kind}">{escape(status)}</span></div>'
        f'<p class="told">{cost} In {escape(last.name)}: {outcome}</p></header>'
    )


def about(stages: list[ReachedStage]) -> str:
    unit = stages[-1].story.unit
    return f"The best {unit} that any member of a stage had reached, over the member-steps of all stages."


def stage_curves(stages: list[ReachedStage]) -> Figure:
    """Draw the stages end to end; a stage beyond the number of colours takes the last one."""
    colours = [COLOURS_OF_RUNS[min(place, len(COLOURS_OF_RUNS) - 1)] for place in range(len(stages))]
    data = [
        trace([Line(stage.curve)], colour, 2.6, f"{escape(stage.name)}<br>member-step %{{x}}: %{{y:.4g}}")
        for stage, colour in zip(stages, colours, strict=True)
    ]
    y, note = calm_axis([stage.curve for stage in stages], stages[-1].story.losses)
    drawn = layout(stages[-1].after, 420, y)
    drawn["xaxis"]["title"]["text"] = "member-steps of all stages"
    legend = [LegendEntry("line", colour, stage.name) for stage, colour in zip(stages, colours, strict=True)]
    table = curve_table({stage.name: stage.curve for stage in stages}, "{:.4g}".format)
    return Figure(data, drawn, legend, note, table)


def row_of_stage(stage: ReachedStage) -> list[str]:
    story = stage.story
    return [
        stage.name,
        str(stage.members),
        str(story.last_step),
        count(stage.after - stage.before),
        f"{decimal(best_of(story))} {story.unit}",
        began_as(story),
        wall_time(story),
    ]


def began_as(story: Story) -> str:
    """Return where a stage's weights came from, in words: the member and the map."""
    origin = next((event.origin for event in story.events if event.origin), None)
    if origin is None:
        return "drawn weights"
    told = json.loads(origin)
    return f"member {told['member']}, {told['map']}" if "member" in told else str(told["map"])


def links(stages: list[ReachedStage]) -> str:
    each = ", ".join(f'<a href="{escape(stage.name)}/{REPORT}">{escape(stage.name)}</a>' for stage in stages)
    return f'<p class="soft">Reports of the stages: {each}</p>'
