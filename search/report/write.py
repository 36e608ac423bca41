"""The report of a run: who won, where its weights came from, what its schedule was, and all the rest."""

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any

from shoal.cluster.storage import Store
from shoal.search.records.directory import STRATIFIED
from shoal.search.records.lineage import Segment
from shoal.search.report.choosing import selection_section
from shoal.search.report.coded import coded
from shoal.search.report.comparison import comparison
from shoal.search.report.costs import costs
from shoal.search.report.drawing import readable_value
from shoal.search.report.figures import (
    EQUAL_LEGEND,
    GROUP_LEGEND,
    SCHEDULE_LEGEND,
    categories,
    genealogy,
    group_loss,
    kept_rows,
    schedule_figure,
    scores,
    stacked,
)
from shoal.search.report.inductive import inductive
from shoal.search.report.left_out import left_out_section
from shoal.search.report.measures import measures, tests_of
from shoal.search.report.mixtures import mixing
from shoal.search.report.page import document, grid, html_legend, html_table, panel, section
from shoal.search.report.search_figures import parallel_figure, searched, slices
from shoal.search.report.story import Story, finite, read_story
from shoal.search.report.wording import count, decimal, duration, with_error

REPORT = "report.html"
MOST_CHIPS = 7  # the header shows so many members of the winning lineage; the genealogy shows all
MOST_VALUES = 5  # a caption shows so many values of a schedule; the figure shows all


def write_report(store: Store) -> str:
    """Draw a run as one HTML file that opens offline; return where it is.

    Raises InputError if the run has no configuration, lineage or metrics yet.
    """
    store.write(REPORT, draw(read_story(store), store))
    return f"{store.uri}/{REPORT}"


def draw(story: Story, store: Store) -> str:
    parts = [
        header(story),
        overview(story),
        slices(story) or schedules(story),
        costs(story),
        mixing(story),
        groups(story),
        measures(story),
        inductive(story),
        coded(story),
        sampling(story),
        left_out_section(story, store),
        selection_section(story),
    ]
    parts += [comparison(story), members(story)]
    configuration = f'<div class="box"><pre>{escape(story.configuration)}</pre></div>'
    parts.append(f"<details><summary>Resolved configuration</summary>{configuration}</details>")
    return document(f"{story.name} · Shoal", [part for part in parts if part])


def header(story: Story) -> str:
    status = escape(story.status)
    if story.status != "done":
        status += f", step {story.last_step} of {story.planned_steps}"
    elif story.summary.get("ended"):
        status += f": {escape(story.summary['ended'])}"
    kind = story.status if story.status in ("done", "failed") else ""
    return (
        f'<header><div class="title"><h1>{escape(story.name)}</h1>'
        f'<span class="status {kind}">{status}</span></div>'
        f'<p class="told">{outcome_sentences(story)}</p>{chips(story.path, story)}{tiles(story)}</header>'
    )


def outcome_sentences(story: Story) -> str:
    """Return the outcome in two sentences."""
    best = story.shown(story.last_scores[story.winner])
    if best is None:
        return f"No member has a finite {story.unit} at step {story.last_step}: all of them failed."
    verb = "won with" if story.status == "done" else "leads with"
    first = f"<b>Member {story.winner}</b> {verb} {story.unit} <b>{best:.4f}</b> after {story.last_step} steps."
    copies = sum(one.member != other.member for one, other in pairwise(story.path))
    if not copies:
        return f"{first} Its weights are its own: it copied nobody."
    times = {1: "once", 2: "twice"}.get(copies, f"{copies} times")
    return f"{first} Its weights began in member {story.path[0].member} and were copied {times} on the way:"


def chips(path: Sequence[Segment], story: Story) -> str:
    if len(path) < 2 or finite(story.last_scores[story.winner]) is None:
        return ""
    known = [
        f"<li><span>member {segment.member}<small>steps {steps(story, segment)}</small></span></li>"
        for segment in path
    ]
    if len(known) > MOST_CHIPS:
        left_out = len(known) - MOST_CHIPS + 1
        known[2 : 2 + left_out] = [f"<li><small>{left_out} more copies</small></li>"]
    return f'<ol class="chips">{"".join(known)}</ol>'


def tiles(story: Story) -> str:
    said = story.summary
    best = story.shown(story.last_scores[story.winner])
    values = [(story.unit, decimal(best) or "none")]
    values += [(f"test {name}", decimal(value) or "none") for name, value in tests_of(story, said).items()]
    values += [
        ("exploits", f"{said.get('exploits', len(story.copies)):,}"),
        ("members", f"{len(story.stays):,}"),
        ("trained", how_trained(story)),
        ("rounds", rounds(story)),
    ]
    tokens = said.get("tokens") or sum(rows[-1].get("tokens") or 0 for rows in story.rows.values())
    if tokens:
        values.append(("tokens", count(tokens)))
    elif rows := said.get("rows"):
        values.append(("rows", count(rows)))
    if (seconds := finite(said.get("wall_seconds"))) is not None:
        values.append(("wall time", duration(seconds)))
    drawn = [
        f"<div{' class=first' if not place else ''}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for place, (name, value) in enumerate(values)
    ]
    return f'<dl class="tiles">{"".join(drawn)}</dl>'


def how_trained(story: Story) -> str:
    """Return whether members trained in stacks, as one model each, or one by one."""
    stacked = sum(any(row.get("stacked") for row in rows) for rows in story.rows.values())
    if not stacked:
        return "one by one"
    return "stacked" if stacked == len(story.rows) else f"{stacked:,} stacked"


def rounds(story: Story) -> str:
    done, planned = len(story.steps), story.summary.get("rounds", 0)
    return f"{done:,} of {planned:,}" if done < planned else f"{done:,}"


def overview(story: Story) -> str:
    what = "In nats; lower is better." if story.losses else "Higher is better."
    if (every := (story.settings.get("score") or {}).get("every", 1)) > 1:
        what += f" Scored at every {every} intervals; in between the last score stays."
    lanes = ("genealogy", "Who copied whom", "One lane per member slot.")
    across = ("parallel", "Hyperparameters and result", "One line per member; nobody copied.")
    figures = [
        panel(*across, parallel_figure(story)) if searched(story) else panel(*lanes, genealogy(story)),
        panel("scores", story.unit.capitalize(), what, scores(story)),
    ]
    return f"<section>{grid(figures, 'stack' if stacked(story) else 'pair')}</section>"


def schedules(story: Story) -> str:
    """Return a figure for each hyperparameter, and a table of its values with the change at each copy."""
    varied = [name for name in story.hyperparameters if story.domains.get(name, {}).get("kind") != "constant"]
    if not varied:
        return ""
    figures = [
        panel(f"schedule-{place}", name, in_words(story, name), schedule_figure(story, name), "h3")
        for place, name in enumerate(varied)
    ]
    body = [path_row(story, place, varied) for place in range(len(story.path))]
    columns = ["steps", "member", f"{story.unit} at the end", *varied]
    table = html_table(columns, body, label="Schedule of the winner")
    whole = f"<details><summary>The same as a table</summary>{table}</details>"
    return section("Schedule of the winner", html_legend(SCHEDULE_LEGEND), grid(figures), whole)


def in_words(story: Story, name: str) -> str:
    """Return the values along the winning lineage, and whether the figure's scale is logarithmic."""
    values = [readable_value(segment.hyperparameters.get(name)) for segment in story.path]
    changes = [value for value, before in zip(values, [None, *values], strict=False) if value != before]
    if len(changes) > MOST_VALUES:
        changes[2 : len(changes) - 2] = ["…"]
    log = story.domains.get(name, {}).get("log") and categories(story, name) is None
    return " → ".join(changes) + (" (log scale)" if log else "")


def path_row(story: Story, place: int, names: Sequence[str]) -> list[str]:
    segment = story.path[place]
    before = story.path[place - 1].hyperparameters if place else segment.hyperparameters
    curve = story.score_curve(segment)
    return [
        steps(story, segment),
        str(segment.member),
        decimal(curve[-1][1]) if curve else "",
        *(changed(before.get(name), segment.hyperparameters.get(name)) for name in names),
    ]


def steps(story: Story, segment: Segment) -> str:
    return f"{segment.from_step} to {story.until(segment)}"


def changed(before: Any, after: Any) -> str:
    """Return a value as text, with the factor by which a copy changed it."""
    if before == after or isinstance(after, bool) or not isinstance(after, int | float):
        return readable_value(after)
    if isinstance(before, int | float) and before and after / before > 0:
        return f"{readable_value(after)} (x{after / before:.2f})"
    return readable_value(after)


def groups(story: Story) -> str:
    test, errors = story.summary.get("test_loss") or {}, story.summary.get("test_error") or {}
    figures = []
    for place, group in enumerate(story.groups):
        known = with_error(test.get(group), errors.get(group))
        about = f"test loss of the winner {known}" if known else ""
        figures.append(panel(f"group-{place}", group, about, group_loss(story, group), "h3"))
    keys = EQUAL_LEGEND if STRATIFIED in story.controls else GROUP_LEGEND
    return section("Validation loss by group", html_legend(keys), grid(figures)) if figures else ""


def sampling(story: Story) -> str:
    if not story.quantiles("kept", (0.5,))[0]:
        return ""
    rule = ((story.settings.get("sampling") or {}).get("rule") or {}).get("kind", "")
    about = f"Share of the training rows by {rule}."
    if scored := story.summary.get("scoring"):
        about += f" They were scored by {scored['model']}: {scored['rows']} rows in {scored['seconds']:.0f} s."
    figure = panel("kept", "Rows kept", about, kept_rows(story), "h3")
    return section("Sampling", html_legend(GROUP_LEGEND), grid([figure]))


def members(story: Story) -> str:
    columns = ["member", story.unit, "copied", "was copied", "copies in lineage", "began in"]
    rows = [member_row(story, member) for member in story.ranking]
    about = '<p class="soft">Best first, at the last round, with the hyperparameters that made the score.</p>'
    body = html_table([*columns, *story.hyperparameters], rows, story.ranking.index(story.winner), "Members")
    return section("Members", about, body)


def member_row(story: Story, member: int) -> list[str]:
    path = story.path_of(member)
    value = story.shown(story.last_scores[member])
    return [
        str(member),
        "failed" if value is None else f"{value:.4f}",
        str(sum(copy.member == member for copy in story.copies)),
        str(sum(copy.parent == member for copy in story.copies)),
        str(len(path) - 1),
        f"member {path[0].member}",
        *(readable_value(path[-1].hyperparameters.get(name, "")) for name in story.hyperparameters),
    ]
