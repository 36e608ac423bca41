"""What is shown of a selection: histograms of the scores by group with the cut, and rows to read.

It is taken from the decisions while they are in memory and kept beside them, for the page and for the report of
a run.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.search.corpus.scores import KEPT_SCORE
from shoal.search.selection.corpora import Corpus, RowPlaces, stored_rows
from shoal.search.selection.deciding import Decided
from shoal.search.selection.pictures import picture, picture_fields
from shoal.search.selection.writing import file_columns
from shoal.search.tokenizers import open_tokenizer

SHOWN_FILE = "shown.json"
ROWS_SHOWN = 10  # rows shown of those kept, dropped, and at the edge
BARS = 40  # bars of a histogram
LETTERS = 400  # most that is shown of a row
QUANTILES = (0.005, 0.995)  # margins beyond them stand in the outermost bars
QUANTILES_OF = 1 << 16  # rows, evenly spaced, of which these quantiles are taken
COUNTED_AT_ONCE = 1 << 16


class ReadRow(NamedTuple):
    """What a page shows of a row: its text, and its images as data URIs."""

    text: str
    pictures: dict[str, str]


def shown_of(pool: Corpus, decided: Decided) -> dict[str, Any]:
    places = example_places(decided)
    wanted = sorted({place for each in places.values() for place in each})
    at = places_among(decided.places, wanted)  # in the order of the files
    read = {int(decided.places[row]): found for row, found in read_rows_at(pool, at.tolist()).items()}
    scores = {int(decided.places[row]): found for row, found in scores_at(pool, decided, at.tolist()).items()}
    rows = {
        title: [shown_row(pool, decided, place, read[place], scores[place]) for place in each]
        for title, each in places.items()
    }
    return {"histograms": histograms(pool, decided), "rows": rows}


def places_among(places: RowPlaces, wanted: list[int]) -> NDArray[np.int64]:
    """Return where among these places the wanted ones stand; `np.isin` takes 17 bytes a row meanwhile."""
    some = np.array(wanted, np.uint32)
    found = [np.flatnonzero(np.isin(places[part], some)) + part.start for part in blocks(len(places))]
    return np.concatenate([np.empty(0, np.int64), *found])


def histograms(pool: Corpus, decided: Decided) -> dict[str, Any]:
    """Return for each group how many rows have a margin in each bar, kept and left out, and the bars' edges."""
    margin = decided.selected.margin
    some = margin[:: max(1, len(margin) // QUANTILES_OF)]
    some = some[np.isfinite(some)]
    if not len(some):
        return {}
    low, high = np.quantile(some, QUANTILES)
    edges = np.linspace(min(low, 0.0), max(high, low + 1e-9, 1e-9), BARS + 1)
    found = np.zeros((len(pool.groups), 2, BARS), np.int64)
    for part in blocks(len(margin)):
        known = np.isfinite(margin[part])
        values = np.clip(margin[part], edges[0], edges[-1])
        for number, left in itertools.product(range(len(pool.groups)), (0, 1)):
            inside = known & (decided.group[part] == number) & ((decided.selected.copies[part] == 0) == left)
            found[number, left] += np.histogram(values[inside], edges)[0]
    counts = dict(zip(pool.groups, found.tolist(), strict=True))
    return {"low": float(edges[0]), "high": float(edges[-1]), "counts": counts}


def example_places(decided: Decided) -> dict[str, list[int]]:
    """Return the places of rows to read: kept, at the edge, dropped, and near duplicates."""
    found: dict[str, tuple[NDArray[Any], NDArray[np.int64]]] = {}
    for part in blocks(len(decided.ids)):
        for title, (key, among) in keys_to_show(decided, part).items():
            inside = np.flatnonzero(among)
            keys, places = key[inside], inside + part.start
            if title in found:
                keys, places = (np.concatenate(pair) for pair in zip(found[title], (keys, places), strict=True))
            order = np.lexsort((decided.ids[places], keys))[:ROWS_SHOWN]  # NaN comes last
            found[title] = keys[order], places[order]
    return {title: places.tolist() for title, (_, places) in found.items() if len(places)}


def keys_to_show(decided: Decided, part: slice) -> dict[str, tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Return for each list of rows to read the keys, least first, and which of these rows may stand in it."""
    margin, ids = decided.selected.margin[part], decided.ids[part]
    kept = decided.selected.copies[part] > 0
    alike = np.zeros(len(ids), bool) if decided.same_as is None else decided.same_as[part] != ids
    return {
        "Kept": (-margin, kept),
        "At the edge": (np.abs(margin), ~np.isnan(margin)),
        "Dropped": (margin, ~kept & ~alike),
        "Near duplicates": (ids, alike),
    }


def blocks(rows: int) -> Iterator[slice]:
    """Yield the places of all rows in parts, so that what is computed of them is small."""
    yield from (slice(start, min(start + COUNTED_AT_ONCE, rows)) for start in range(0, rows, COUNTED_AT_ONCE))


def shown_row(
    pool: Corpus, decided: Decided, place: int, read: ReadRow, scores: dict[str, float]
) -> dict[str, Any]:
    margin, row = float(decided.selected.margin[place]), int(decided.ids[place])
    same = row if decided.same_as is None else int(decided.same_as[place])
    return {
        "row_id": row,
        "group": list(pool.groups)[int(decided.group[place])],
        "reason": decided.selected.why(place),
        "margin": margin if np.isfinite(margin) else None,
        "duplicate_of": same if same != row else None,
        "scores": {name: value for name, value in scores.items() if np.isfinite(value)},
        "text": read.text[:LETTERS],
        "pictures": read.pictures,
    }


def read_rows_at(pool: Corpus, places: list[int]) -> dict[int, ReadRow]:
    """Return what is read of rows at these places, which rise; only files that hold one of them are read."""
    tokenizer, images = open_tokenizer(pool.manifest.tokenizer), picture_fields(pool)
    columns = (pool.data.columns or {}).items()
    texts = {name: open_tokenizer(column.tokenizer) for name, column in columns if column.kind == "text"}
    found = dict[int, ReadRow]()
    for file, start, inside in files_with(pool, places):
        rows = stored_rows(pool.store, file)[1]
        for place in inside:
            row = rows[place - start]
            pictures = {name: picture(row[name]) for name in images}
            found[place] = ReadRow(readable_text(row, tokenizer, images, texts), pictures)
    return found


def scores_at(pool: Corpus, decided: Decided, places: list[int]) -> dict[int, dict[str, float]]:
    """Return the numbers that scores gave rows at these places, which rise."""
    found = dict[int, dict[str, float]]()
    for file, start, inside in files_with(pool, places):
        columns = file_columns(pool, decided, file, start)[1]
        for place in inside:
            found[place] = {
                name.removeprefix(KEPT_SCORE): float(values[place - start]) for name, values in columns.items()
            }
    return found


def files_with(pool: Corpus, places: list[int]) -> Iterator[tuple[str, int, list[int]]]:
    """Yield the files that hold rows at some places, the place of each one's first row, and those places."""
    start = 0
    for file in pool.files:
        size = len(pool.store.read_table(file, columns=["row_id"]))
        if inside := [place for place in places if start <= place < start + size]:
            yield file, start, inside
        start += size


def readable_text(
    row: Any,
    tokenizer: Any,
    images: Sequence[str] = (),
    texts: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return a row as it can be read: its texts, or the fields of other records, arrays cut short.

    Fields in `images` are left out; `texts` has the tokenizers of columns of texts.
    """
    names = row.dtype.names
    if names is None:
        return str(tokenizer.decode(row))
    if {"tokens", "segment"} <= set(names):
        examples = [
            row["tokens"][row["segment"] == number] for number in range(1, int(row["segment"].max()) + 1)
        ]
        return "\n\n".join(str(tokenizer.decode(each)) for each in examples)
    if "chosen_mask" in names:
        return f"better: {answered(row, 'chosen', tokenizer)}\n\nworse: {answered(row, 'rejected', tokenizer)}"
    told = [name for name in names if name not in images]
    return "\n".join(
        f"{name}: {texts_in(row[name], texts[name])}"
        if name in texts
        else f"{name}: {np.array2string(row[name], threshold=20)}"
        for name in told
    )


def texts_in(tokens: NDArray[np.integer], tokenizer: Any) -> str:
    """Return the text of a column, or its several texts; -1 stands where one has ended."""
    each = np.atleast_2d(tokens)
    return " | ".join(str(tokenizer.decode(row[row >= 0])) for row in each if (row >= 0).any())


def answered(row: Any, name: str, tokenizer: Any) -> str:
    """Return the prompt with one of a pair's answers; what comes behind the answer is padding."""
    end = int(np.flatnonzero(row[f"{name}_mask"]).max(initial=-1)) + 1
    return str(tokenizer.decode(row[name][:end]))
