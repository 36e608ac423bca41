"""What is shown of a selection: histograms of the scores by group with the cut, and rows to read.

It is taken from the decisions while they are in memory and kept beside them, for the page and for the report of
a run.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.search.selection.corpora import Corpus, stored_rows
from shoal.search.selection.deciding import Decided
from shoal.search.tokenizers import open_tokenizer

SHOWN_FILE = "shown.json"
ROWS_SHOWN = 10  # rows shown of those kept, dropped, and at the edge
BARS = 40  # bars of a histogram
LETTERS = 400  # most that is shown of a row
QUANTILES = (0.005, 0.995)  # margins beyond them stand in the outermost bars
QUANTILES_OF = 1 << 20  # rows, evenly spaced, of which these quantiles are taken


def shown_of(pool: Corpus, decided: Decided) -> dict[str, Any]:
    places = example_places(decided)
    texts = texts_at(pool, sorted({place for each in places.values() for place in each}))
    rows = {
        title: [shown_row(pool, decided, place, texts[place]) for place in each]
        for title, each in places.items()
    }
    return {"histograms": histograms(pool, decided), "rows": rows}


def histograms(pool: Corpus, decided: Decided) -> dict[str, Any]:
    """Return for each group how many rows have a margin in each bar, kept and left out, and the bars' edges."""
    margin, kept = decided.selected.margin, decided.selected.copies > 0
    known = np.isfinite(margin)
    if not known.any():
        return {}
    some = margin[known]
    low, high = np.quantile(some[:: max(1, len(some) // QUANTILES_OF)], QUANTILES)
    edges = np.linspace(min(low, 0.0), max(high, low + 1e-9, 1e-9), BARS + 1)
    counts = {}
    for number, name in enumerate(pool.groups):
        inside = known & (decided.group == number)
        counts[name] = [
            np.histogram(np.clip(margin[inside & part], edges[0], edges[-1]), edges)[0].tolist()
            for part in (kept, ~kept)
        ]
    return {"low": float(edges[0]), "high": float(edges[-1]), "counts": counts}


def example_places(decided: Decided) -> dict[str, list[int]]:
    """Return the places of rows to read: kept, at the edge, dropped, and near duplicates."""
    margin, ids = decided.selected.margin, decided.ids
    kept, alike = decided.selected.copies > 0, decided.same_as != ids
    unknown = np.isnan(margin)
    found = {
        "Kept": best(-margin, ids, kept),
        "At the edge": best(np.abs(margin), ids, ~unknown),
        "Dropped": best(margin, ids, ~kept & ~alike),
        "Near duplicates": best(ids, ids, alike),
    }
    return {title: places for title, places in found.items() if places}


def best(key: NDArray[Any], ids: NDArray[np.int64], among: NDArray[np.bool_]) -> list[int]:
    """Return the places of the rows of the least keys, by id where keys are equal; NaN comes last."""
    places = np.flatnonzero(among)
    order = np.lexsort((ids[places], key[places]))[:ROWS_SHOWN]
    return [int(place) for place in places[order]]


def shown_row(pool: Corpus, decided: Decided, place: int, text: str) -> dict[str, Any]:
    margin, same = float(decided.selected.margin[place]), int(decided.same_as[place])
    return {
        "row_id": int(decided.ids[place]),
        "group": list(pool.groups)[int(decided.group[place])],
        "reason": decided.selected.why(place),
        "margin": margin if np.isfinite(margin) else None,
        "duplicate_of": same if same != decided.ids[place] else None,
        "text": text[:LETTERS],
    }


def texts_at(pool: Corpus, places: list[int]) -> dict[int, str]:
    """Return the texts of rows at these places, which rise; only files that hold one of them are read."""
    tokenizer, found, start = open_tokenizer(pool.manifest.tokenizer), dict[int, str](), 0
    for file in pool.files:
        size = len(pool.store.read_table(file, columns=["row_id"]))
        inside = [place for place in places if start <= place < start + size]
        if inside:
            rows = stored_rows(pool.store, file)[1]
            found |= {place: readable_text(rows[place - start], tokenizer) for place in inside}
        start += size
    return found


def readable_text(row: Any, tokenizer: Any) -> str:
    """Return a row as it can be read; of a record its fields, numbers and arrays cut short."""
    if row.dtype.names is None:
        return str(tokenizer.decode(row))
    return "\n".join(f"{name}: {np.array2string(row[name], threshold=20)}" for name in row.dtype.names)
