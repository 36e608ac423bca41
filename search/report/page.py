"""The page around the figures: one HTML file that needs nothing else, not even a network."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

from plotly.offline import get_plotlyjs

from shoal.search.report.drawing import Figure, LegendEntry, Table, to_json

STYLE = """
:root { color-scheme: light dark; --page: #f7f7f5; --panel: #fff; --ink: #1c1f24; --soft: #5c636e;
  --line: #e2e3e0; --winner: #c14f00; --good: #00795a; --wash: #fdf1e8; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --panel: #1c2026; --ink: #e8eaed;
  --soft: #a0a7b2; --line: #323842; --winner: #f28a3c; --good: #3fc79a; --wash: #33261c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 26px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0; } h3 { font-size: 14px; margin: 0; overflow-wrap: anywhere; }
section { margin-top: 30px; } section > h2 { margin-bottom: 10px; }
section > h3 { margin: 16px 0 6px; } p { margin: 0; } .soft { color: var(--soft); font-size: 13px; }
.title { display: flex; gap: 12px; align-items: center; flex-wrap: wrap; }
.status { font-size: 13px; padding: 1px 10px; border-radius: 99px; border: 1px solid currentColor;
  color: var(--soft); } .status.done { color: var(--good); } .status.failed { color: var(--winner); }
.told { font-size: 18px; margin: 12px 0; max-width: 110ch; } .told b { color: var(--winner); }
.chips { display: flex; flex-wrap: wrap; gap: 6px 0; list-style: none; margin: 0; padding: 0;
  font-variant-numeric: tabular-nums; }
.chips li { display: flex; align-items: center; }
.chips li:not(:last-child)::after { content: "→"; color: var(--soft); margin: 0 8px; }
.chips span { background: var(--wash); border-radius: 6px; padding: 3px 10px; font-size: 14px; }
.chips small { color: var(--soft); margin-left: 6px; font-size: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(114px, 1fr)); gap: 10px;
  margin: 18px 0 0; }
.tiles div { background: var(--panel); border: 1px solid var(--line); border-radius: 10px;
  padding: 9px 10px; }
.tiles dt { color: var(--soft); font-size: 12px; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.tiles dd { margin: 0; font-size: 16px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tiles .first { border-color: var(--winner); }
.grid { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.grid.pair { grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); }
.grid.stack { grid-template-columns: minmax(0, 1fr); }
figure, .box { margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px 6px; min-width: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin: 4px 0 0; padding: 0;
  font-size: 13px; color: var(--soft); }
.legend li { display: flex; align-items: center; gap: 6px; } .legend svg { flex: none; }
section > .legend { margin: -6px 0 10px; } section > .soft { margin: -6px 0 10px; }
.scroll { overflow: auto; max-height: 640px; padding: 0; align-self: start; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 14px; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: inherit; } thead th { position: sticky; top: 0; background: var(--panel); color: var(--soft);
  font-weight: 500; font-size: 13px; } th:first-child { text-align: left; }
tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 9ch; }
tr:last-child :is(td, th) { border-bottom: 0; }
tr.winner :is(td, th) { background: var(--wash); font-weight: 600; }
a { color: inherit; } :focus-visible { outline: 2px solid var(--winner); outline-offset: 2px; }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--soft); }
details .box { margin-top: 8px; } pre { overflow: auto; margin: 0; padding: 6px 0 10px; font-size: 13px; }
.plot .main-svg { background: transparent !important; }
.plot :is(.xtick, .ytick, .g-xtitle, .g-ytitle) text { fill: var(--soft) !important; }
.plot .gridlayer path { stroke: var(--line) !important; }
.plot .zerolinelayer path { stroke: var(--line) !important; }
.plot .hovertext path { fill: var(--panel) !important; stroke: var(--soft) !important; }
.plot .hovertext text, .plot .hovertext tspan { fill: var(--ink) !important; }
@media (max-width: 600px) { main { padding: 18px 12px 40px; } .told { font-size: 16px; } }
"""

SCRIPT = """
const font = {family: getComputedStyle(document.body).fontFamily, size: 12};
const axis = {zeroline: false, automargin: true, ticks: "outside", ticklen: 6,
  tickcolor: "rgba(0,0,0,0)"};
const template = {layout: {font, hoverlabel: {font}, hovermode: "closest",
  xaxis: {...axis, showgrid: false}, yaxis: axis,
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)"}};
// a finger that drags over a figure wants to scroll the page
const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
for (const plot of document.querySelectorAll(".plot")) {
  const figure = JSON.parse(document.getElementById(plot.id + "-figure").textContent);
  Plotly.newPlot(plot, figure.data, {...figure.layout, template, dragmode},
    {responsive: true, displayModeBar: false});
}
"""

SWATCHES = {
    "thick": '<path d="M0 6h26" stroke="{0}" stroke-width="4.5"/>',
    "line": '<path d="M0 6h26" stroke="{0}" stroke-width="2"/>',
    "dashed": '<path d="M0 6h26" stroke="{0}" stroke-width="2" stroke-dasharray="6 4"/>',
    "arrow": '<path d="M1 11L20 3" stroke="{0}" stroke-width="1.5"/><path d="M26 .5l-9 .2 3 6z" fill="{0}"/>',
    "cross": '<path d="M9 2l8 8m0-8l-8 8" stroke="{0}" stroke-width="3"/>',
    "band": '<path d="M0 6h26" stroke="{0}" stroke-opacity=".25" stroke-width="12"/>',
}


def document(title: str, sections: Iterable[str]) -> str:
    """Return the whole page. Its policy tells the browser to refuse every request and every other script."""
    library = get_plotlyjs()
    hashes = " ".join(f"'sha256-{script_hash(script)}'" for script in (library, SCRIPT))
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            *sections,
            f"</main>\n<script>{library}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def script_hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def panel(name: str, title: str, about: str, figure: Figure, heading: str = "h2") -> str:
    """Return a figure with its title, what it is about, and its legend; `name` is its id in the page."""
    note = f'<p class="soft">{escape(figure.note)}</p>' if figure.note else ""
    said = f'<p class="soft">{escape(about)}</p>' if about else ""
    table = figure_table(title, figure.table)
    return (
        f"<figure><figcaption><{heading}>{escape(title)}</{heading}>{said}{html_legend(figure.legend)}{note}</figcaption>"
        f'<div class="plot" id="{name}" role="img" aria-label="{escape(f"{title}. {about}")}"></div>'
        f'<script type="application/json" id="{name}-figure">{to_json(figure)}</script>{table}</figure>'
    )


def figure_table(title: str, table: Table) -> str:
    """Return what a figure shows as a table that opens; nothing where its section has one for all figures."""
    if not table.columns:
        return ""
    said = f'<p class="soft">{table.left_out} more are only in the figure.</p>' if table.left_out else ""
    whole = html_table(table.columns, table.rows, label=f"{title} as a table")
    return f"<details><summary>{escape(title)} as a table</summary>{said}{whole}</details>"


def html_legend(keys: Sequence[LegendEntry]) -> str:
    lines = [
        f'<li><svg width="26" height="12" aria-hidden="true">{SWATCHES[key.swatch].format(key.colour)}</svg>'
        f"{escape(key.meaning)}</li>"
        for key in keys
    ]
    return f'<ul class="legend">{"".join(lines)}</ul>' if lines else ""


def html_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], marked: int | None = None, label: str = "Table"
) -> str:
    """Return a table of plain text; `marked` is the place of the winner's row.

    The keyboard scrolls the box around it, which `label` names for who only hears the page.
    """
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(table_row(row, place == marked) for place, row in enumerate(rows))
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="box scroll" tabindex="0" role="region" aria-label="{escape(label)}">{whole}</div>'


def table_row(cells: Sequence[str], winner: bool) -> str:
    kind = ' class="winner"' if winner else ""
    first, *rest = cells
    named = f'<th scope="row">{escape(first)}</th>'
    return f"<tr{kind}>{named}{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"


def section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def grid(figures: Sequence[str], kind: str = "") -> str:
    return f'<div class="{f"grid {kind}".strip()}">{"".join(figures)}</div>'
