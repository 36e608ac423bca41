"""The page of a selection: scores by group with the cut, shares kept, and rows to read; it opens offline."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.selection.pictures import row_as_html, rows_as_html
from shoal.search.selection.select import Chosen
from shoal.search.selection.shown import SHOWN_FILE

PAGE = "page.html"
WIDTH, HEIGHT, BELOW = 320, 90, 16  # size of a histogram in pixels, and of the numbers below it
KEPT, LEFT, CUT = "#00795a", "#a9b0ba", "#c14f00"  # colours of rows kept, of rows left out, and of the cut
VIEWPORT = '<meta name=viewport content="width=device-width, initial-scale=1">'
PAGE_STYLE = """
:root { color-scheme: light dark; --soft: #5c636e; --line: #ddd; --wash: #f4f4f2; }
@media (prefers-color-scheme: dark) { :root { --soft: #a0a7b2; --line: #323842; --wash: #1c2026; }
  body { background: #14171b; color: #e8eaed; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 24px auto; padding: 0 16px; }
h1 { font-size: 26px; overflow-wrap: anywhere; }
table { border-collapse: collapse; } th { font-weight: 500; }
td, th { text-align: right; padding: 3px 8px; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; }
figure { margin: 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--wash); padding: 8px; font-size: 12px; }
.soft { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
"""


def write_page(run: Run, chosen: Chosen) -> str:
    """Write the page beside the decisions; return its name in the corpus of the chosen rows."""
    store = Store(chosen.data.corpus)
    shown = store.read_json(f"{chosen.folder}/{SHOWN_FILE}", "rows")
    said = f"{escape(run.name)}: {chosen.record['kept']} of {chosen.record['rows']} rows kept"
    title = f"<title>{escape(run.name)}: selection</title>"
    head = f"<!doctype html><html lang=en><meta charset=utf-8>{VIEWPORT}{title}"
    page = f"{head}<style>{PAGE_STYLE}</style><h1>{said}</h1>"
    name = f"{chosen.folder}/{PAGE}"
    store.write(name, page + "\n".join(parts_of(chosen.record, shown)))
    return name


def parts_of(record: Mapping[str, Any], shown: Mapping[str, Any]) -> Iterable[str]:
    """Yield what a page has about a selection, as HTML."""
    yield f'<p class=soft style="margin: 4px 0 10px">policy {escape(policy_in_words(record["policy"]))}</p>'
    yield group_table(record)
    yield kl_table(record)
    if found := shown["histograms"]:
        yield "<h3>How far rows lie above the cut</h3>"
        drawn = [
            f"<figure><figcaption>{escape(name)}</figcaption>"
            f"{bars(kept, left, found['low'], found['high'])}</figure>"
            for name, (kept, left) in found["counts"].items()
        ]
        yield f'<div style="display: flex; flex-wrap: wrap; gap: 16px">{"".join(drawn)}</div>'
    for title, rows in shown["rows"].items():
        drawn = list(map(readable_row, rows))
        pictured = any(row.get("pictures") for row in rows)
        yield f"<h3>{escape(title)}</h3>{rows_as_html(drawn, pictured)}"


def policy_in_words(policy: Mapping[str, Any]) -> str:
    told = (f"{name} {value}" for name, value in policy.items() if name != "kind" and value is not None)
    return ", ".join((str(policy["kind"]), *told))


def group_table(record: Mapping[str, Any]) -> str:
    rows = ""
    for name, group in record["groups"].items():
        share = group["kept"] / max(group["rows"], 1)
        rows += f"<tr><th scope=row>{escape(name)}<td>{group['rows']}<td>{group['kept']}<td>{share:.1%}"
        rows += f"<td>{group['copies']}"
    said = "".join(f"<li>{count} rows: {escape(name)}" for name, count in record["reasons"].items())
    table = f"<table><tr><th>group<th>rows<th>kept<th>share<th>copies{rows}</table>"
    return f"{scrolling(table)}<ul>{said}</ul>"


def kl_table(record: Mapping[str, Any]) -> str:
    if not record["kl"]:
        return ""
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}<td>{kl['before']:.4f}<td>{kl['after']:.4f}"
        for name, kl in record["kl"].items()
    )
    return scrolling(f"<table><tr><th>KL to the target, nats<th>before<th>after{rows}</table>")


def scrolling(table: str) -> str:
    return f'<div style="overflow-x: auto">{table}</div>'


def bars(kept: list[int], left: list[int], low: float, high: float) -> str:
    """Return a histogram with the cut, which lies at 0, as an image."""
    most, width = max(map(sum, zip(kept, left, strict=True)), default=1) or 1, WIDTH / len(kept)
    drawn = []
    for place, (first, second) in enumerate(zip(kept, left, strict=True)):
        above, below = HEIGHT * first / most, HEIGHT * second / most
        at = f"x={place * width:.1f} width={width - 1:.1f}"
        drawn.append(f'<rect fill="{LEFT}" {at} y={HEIGHT - below:.1f} height={below:.1f} />')
        drawn.append(f'<rect fill="{KEPT}" {at} y={HEIGHT - below - above:.1f} height={above:.1f} />')
    cut = WIDTH * (0 - low) / (high - low)
    drawn.append(f'<line x1={cut:.1f} x2={cut:.1f} y1=0 y2={HEIGHT} stroke="{CUT}" stroke-width=2 />')
    label = f'y={HEIGHT + BELOW - 4} font-size=11 fill="currentColor"'
    drawn.append(f"<text x=0 {label}>{low:.3g}</text>")
    drawn.append(f'<text x={WIDTH} {label} text-anchor="end">{high:.3g}</text>')
    size = f'width={WIDTH} viewBox="0 0 {WIDTH} {HEIGHT + BELOW}" style="max-width: 100%"'
    return f"<svg {size} role=img>{''.join(drawn)}</svg>"


def readable_row(row: Mapping[str, Any]) -> str:
    margin = "" if row["margin"] is None else f", margin {row['margin']:.4g}"
    alike = "" if row["duplicate_of"] is None else f" of {row['duplicate_of']}"
    said = f"{row['row_id']} of {row['group']}: {row['reason']}{alike}{margin}"
    scores = "".join(f", {name} {value:.4g}" for name, value in row.get("scores", {}).items())
    return row_as_html(row["row_id"], said + scores, row["text"], row.get("pictures", {}))
