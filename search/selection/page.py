"""The page of a selection: scores by group with the cut, shares kept, and rows to read; it opens offline."""

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.corpus.manifest import load_corpus
from shoal.search.selection.scoring import stored_rows
from shoal.search.selection.select import Chosen
from shoal.search.selection.writing import DECISIONS
from shoal.search.tokenizers import open_tokenizer

PAGE = "page.html"
ROWS_SHOWN = 10  # rows shown of those kept, dropped, and at the edge
BARS, WIDTH, HEIGHT = 40, 320, 90  # bars of a histogram, and its size in pixels
LETTERS = 400  # most that is shown of a row
PAGE_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 24px auto; padding: 0 16px; }
table { border-collapse: collapse; }
td, th { text-align: right; padding: 3px 12px; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f4f4f2; padding: 8px; font-size: 12px; }
.kept { fill: #00795a; } .left { fill: #c9cbc7; } .soft { color: #5c636e; font-size: 13px; }
.plots { display: flex; flex-wrap: wrap; gap: 16px; }
"""


def write_page(run: Run, chosen: Chosen) -> str:
    """Write the page beside the decisions; return its name in the corpus of the chosen rows."""
    store = Store(chosen.data.corpus)
    decisions = store.read_table(f"{chosen.folder}/{DECISIONS}")
    parts = [
        f"<h1>{escape(run.name)}: {chosen.record['kept']} of {chosen.record['rows']} rows kept</h1>",
        f"<p class=soft>policy {escape(str(chosen.record['policy']))}</p>",
        group_table(chosen.record),
        kl_table(chosen.record),
        "<h2>How far rows lie above the cut</h2>",
        f"<div class=plots>{''.join(histograms(decisions))}</div>",
        *(rows_section(run, title, rows) for title, rows in examples(decisions).items()),
    ]
    title = f"<title>{escape(run.name)}: selection</title>"
    page = f"<!doctype html><meta charset=utf-8>{title}<style>{PAGE_STYLE}</style>"
    name = f"{chosen.folder}/{PAGE}"
    store.write(name, page + "\n".join(parts))
    return name


def group_table(record: dict[str, Any]) -> str:
    rows = ""
    for name, group in record["groups"].items():
        share = group["kept"] / max(group["rows"], 1)
        rows += f"<tr><td>{escape(name)}<td>{group['rows']}<td>{group['kept']}<td>{share:.1%}"
        rows += f"<td>{group['copies']}"
    said = "".join(f"<li>{count} rows: {escape(name)}" for name, count in record["reasons"].items())
    return f"<table><tr><th>group<th>rows<th>kept<th>share<th>copies{rows}</table><ul>{said}</ul>"


def kl_table(record: dict[str, Any]) -> str:
    if not record["kl"]:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}<td>{kl['before']:.4f}<td>{kl['after']:.4f}"
        for name, kl in record["kl"].items()
    )
    return f"<table><tr><th>KL to the target, nats<th>before<th>after{rows}</table>"


def histograms(decisions: pa.Table) -> Iterable[str]:
    """Yield a histogram of the margins for each group; what was kept is coloured."""
    margin, kept = decisions["margin"].to_numpy(), decisions["copies"].to_numpy() > 0
    group = np.array(decisions["group"].to_pylist())
    known = np.isfinite(margin)
    if not known.any():
        return
    low, high = np.quantile(margin[known], (0.005, 0.995))
    edges = np.linspace(min(low, 0.0), max(high, low + 1e-9, 1e-9), BARS + 1)
    for name in dict.fromkeys(group.tolist()):
        inside = known & (group == name)
        counts = [
            np.histogram(np.clip(margin[inside & part], edges[0], edges[-1]), edges)[0]
            for part in (kept, ~kept)
        ]
        yield f"<figure><figcaption>{escape(name)}</figcaption>{bars(*counts)}</figure>"


def bars(kept: NDArray[np.int64], left: NDArray[np.int64]) -> str:
    most, width = max(int((kept + left).max()), 1), WIDTH / BARS
    drawn = []
    for place, (first, second) in enumerate(zip(kept.tolist(), left.tolist(), strict=True)):
        high, below = HEIGHT * first / most, HEIGHT * second / most
        at = f"x={place * width:.1f} width={width - 1:.1f}"
        drawn.append(f"<rect class=left {at} y={HEIGHT - below:.1f} height={below:.1f} />")
        drawn.append(f"<rect class=kept {at} y={HEIGHT - below - high:.1f} height={high:.1f} />")
    return f"<svg width={WIDTH} height={HEIGHT} role=img>{''.join(drawn)}</svg>"


def examples(decisions: pa.Table) -> dict[str, pa.Table]:
    """Return rows to read: kept, dropped, at the edge, and near duplicates."""
    rows = decisions.append_column("away", pc.abs(decisions["margin"]))
    kept = rows.filter(pc.greater(rows["copies"], 0))
    dropped = rows.filter(pc.equal(rows["copies"], 0))
    alike = rows.filter(pc.is_valid(rows["duplicate_of"]))
    order = [("margin", "descending"), ("row_id", "ascending")]
    found = {
        "Kept": kept.sort_by(order).slice(0, ROWS_SHOWN),
        "At the edge": rows.sort_by([("away", "ascending"), ("row_id", "ascending")]).slice(0, ROWS_SHOWN),
        "Dropped": dropped.sort_by([("margin", "ascending"), ("row_id", "ascending")]).slice(0, ROWS_SHOWN),
        "Near duplicates": alike.slice(0, ROWS_SHOWN),
    }
    return {title: table for title, table in found.items() if len(table)}


def rows_section(run: Run, title: str, rows: pa.Table) -> str:
    texts = texts_of(run, rows["row_id"].to_pylist())
    shown = []
    for row in rows.to_pylist():
        margin = f", margin {row['margin']:.4g}" if row["margin"] == row["margin"] else ""
        alike = f" of {row['duplicate_of']}" if row["duplicate_of"] is not None else ""
        said = f"{row['row_id']} of {escape(row['group'])}: {escape(row['reason'])}{alike}{margin}"
        text = escape(texts.get(row["row_id"], "")[:LETTERS])
        shown.append(f"<p class=soft>{said}</p><pre>{text}</pre>")
    return f"<h2>{title}</h2>{''.join(shown)}"


def as_text(row: Any, tokenizer: Any) -> str:
    """Return a row as it can be read; of a record its fields, numbers and arrays cut short."""
    if row.dtype.names is None:
        return str(tokenizer.decode(row))
    return "\n".join(f"{name}: {np.array2string(row[name], threshold=20)}" for name in row.dtype.names)


def texts_of(run: Run, ids: list[int]) -> dict[int, str]:
    """Return the texts of some of the pool's rows; a file is read only until all are found."""
    manifest, store = load_corpus(run.data), Store(run.data.corpus)
    tokenizer, wanted, found = open_tokenizer(manifest.tokenizer), set(ids), dict[int, str]()
    for group in manifest.groups.values():
        for file in group.splits["train"].files:
            if not wanted - found.keys():
                return found
            numbers, rows = stored_rows(store, file)
            for place in np.flatnonzero(np.isin(numbers, ids)).tolist():
                found[int(numbers[place])] = as_text(rows[place], tokenizer)
    return found
