"""One round of refining: the signals of a corpus's rows, what is to be done with each, and the next corpus.

A row that is replaced or added is a text of the user's class, written as tokens: what does not fit into a row
is cut off, and what is missing is filled with the token that ends texts.
"""

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.cluster.rows import TOKENS, as_column
from shoal.policies.selection.interface import Selected
from shoal.policies.selection.quantise import unit_rows
from shoal.policies.selection.refine import (
    ACTIONS,
    KEEP,
    SEED,
    SIMPLIFY,
    Flagged,
    Generation,
    child_ids,
    next_generation,
    similarity_to_nearest,
)
from shoal.search.config.run import Run
from shoal.search.config.sections import Data
from shoal.search.config.selection import EmbeddingScore, LossScore
from shoal.search.corpus.manifest import Manifest
from shoal.search.errors import InputError
from shoal.search.selection.corpora import Corpus, read_columns, read_groups, read_ids, stored_rows
from shoal.search.selection.deciding import Decided
from shoal.search.selection.interface import Scoring, tokens_of
from shoal.search.selection.scorers import answer_of, own_object
from shoal.search.selection.scoring import scored
from shoal.search.selection.writing import write_selected
from shoal.search.tokenizers import open_tokenizer

REFINE_KEY = "refine"
ASKED_AT_ONCE = 64  # rows that the user's class is asked about at a time
NEAR = 2  # rows that a seed is shown beside the row itself
ROUND_ACTIONS = "actions.parquet"


class Asked(NamedTuple):
    """What the user's class is asked for: one new text."""

    action: str  # simplify, rewrite or seed
    text: str  # the row that is replaced, or that the new one is to be like
    near: tuple[str, ...]  # a seed has the texts of the nearest rows here


class Signals(NamedTuple):
    """What is known of the rows of a corpus, in the order of its files."""

    ids: NDArray[np.int64]
    tokens: NDArray[np.unsignedinteger]  # (rows, length)
    columns: dict[str, NDArray[Any]]
    embedding: NDArray[np.floating]  # (rows, width)


def rewriter_of(run: Run) -> Any:
    assert run.refine is not None
    return own_object(REFINE_KEY, run.refine.made, run.code, "rewrite(asked)")


def signals_of(run: Run, corpus: Corpus, model: str, made: Any, report: Callable[[str], None]) -> Signals:
    """Return losses before and after training, similarities and ratings of all training rows."""
    assert run.refine is not None
    folders = [
        scored(run, corpus, None, scoring_of(run, corpus, settings, key), "", report)
        for settings, key in (
            (LossScore(kind="loss", model=run.refine.base, column="loss_before"), f"{REFINE_KEY}.base"),
            (LossScore(kind="loss", model=model, column="loss_after"), REFINE_KEY),
            (EmbeddingScore(kind="embedding", model=model), REFINE_KEY),
        )
    ]
    columns = read_columns(corpus, folders)
    embedding = columns.pop("embedding")
    columns["similarity"] = similarity_to_nearest(embedding, NEAR)
    tokens = np.concatenate(
        [tokens_of(stored_rows(corpus.store, file)[1], REFINE_KEY) for file in corpus.files]
    )
    columns["rating"] = ratings_of(made, texts_of_rows(corpus, tokens))
    return Signals(read_ids(corpus), tokens, columns, embedding)


def scoring_of(run: Run, corpus: Corpus, settings: Any, key: str) -> Scoring:
    return Scoring(settings, key, run.data.sequence_length, run.device, corpus.manifest.tokenizer)


def texts_of_rows(corpus: Corpus, tokens: NDArray[np.unsignedinteger]) -> list[str]:
    tokenizer = open_tokenizer(corpus.manifest.tokenizer)
    # the tokens that only fill a row up are no part of its text
    return [tokenizer.decode(row[: last_token(row, tokenizer.end) + 1]) for row in tokens]


def last_token(row: NDArray[np.unsignedinteger], end: int) -> int:
    """Return the place of the last token that does not end texts; 0 if there is none."""
    return int(np.flatnonzero(row != end)[-1]) if (row != end).any() else 0


def ratings_of(made: Any, texts: list[str]) -> NDArray[np.float64]:
    """Return what the user's class rates texts at; NaN for all if it does not rate."""
    if not callable(getattr(made, "rate", None)):
        return np.full(len(texts), np.nan)
    parts = [texts[start : start + ASKED_AT_ONCE] for start in range(0, len(texts), ASKED_AT_ONCE)]
    return np.concatenate([ratings_in(answer_of(REFINE_KEY, made, "rate", part), len(part)) for part in parts])


def ratings_in(given: Any, texts: int) -> NDArray[np.float64]:
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        found = None
    if found is None or found.shape != (texts,):
        raise InputError(
            f"{REFINE_KEY}.made: rate(texts) must return a number for each of {texts} texts, got "
            f"{shortly(given)}."
        )
    return found


def shortly(given: Any) -> str:
    """Return what a user's method gave in a few words."""
    if not isinstance(given, Sized):
        return type(given).__name__
    kinds = sorted({type(each).__name__ for each in given}) if isinstance(given, Iterable) else []
    return f"{len(given)} of {', '.join(kinds) or 'no kind'}"


def write_generation(
    corpus: Corpus, place: Data, signals: Signals, flagged: Flagged, number: int, made: Any
) -> tuple[Manifest, Generation]:
    """Have flagged rows rewritten and write the next round's corpus; return it, and whose child each row is."""
    texts, lost = {}, set[int]()
    for action in range(SIMPLIFY, SEED + 1):
        rows = np.flatnonzero(flagged.seeds if action == SEED else flagged.action == action)
        children = child_ids(signals.ids[rows], number, action)
        for child, text in zip(
            children.tolist(), rewritten_texts(corpus, signals, made, action, rows), strict=True
        ):
            if text is None:
                lost.add(child)
            else:
                texts[child] = text
    generation = next_generation(signals.ids, flagged, number, frozenset(lost))
    kept = np.isin(signals.ids, generation.ids[generation.action == KEEP])
    group = read_groups(corpus)
    added = {}
    for each, name in enumerate(corpus.groups):
        table = children_of(corpus, signals, generation, texts, signals.ids[group == each])
        if table is not None:
            added[name] = table
    nothing = Selected(kept.astype(np.int32), np.full(len(kept), np.nan), kept.astype(np.int16), ("", ""), {})
    decided = Decided(signals.ids, group, np.arange(len(kept), dtype=np.uint32), nothing)
    return write_selected(corpus, place, decided, added), generation


def rewritten_texts(
    corpus: Corpus, signals: Signals, made: Any, action: int, rows: NDArray[np.int64]
) -> list[str | None]:
    """Return the texts that the user's class makes of rows; None where it makes none."""
    texts = texts_of_rows(corpus, signals.tokens[rows])
    near: Sequence[tuple[str, ...]] = [()] * len(rows)
    if action == SEED and len(rows):
        nearest = nearest_other_rows(signals.embedding, rows)
        near = [tuple(texts_of_rows(corpus, signals.tokens[each])) for each in nearest]
    asked = [Asked(ACTIONS[action], text, others) for text, others in zip(texts, near, strict=True)]
    found: list[str | None] = []
    for start in range(0, len(asked), ASKED_AT_ONCE):
        part = asked[start : start + ASKED_AT_ONCE]
        given = answer_of(REFINE_KEY, made, "rewrite", part)
        written_texts = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
        if len(written_texts) != len(part) or any(not isinstance(text, str | None) for text in written_texts):
            raise InputError(
                f"{REFINE_KEY}.made: rewrite(asked) must return a text, or None, for each of {len(part)} "
                f"requests, got {shortly(written_texts or given)}."
            )
        found += [text if text and text.strip() else None for text in written_texts]  # nothing was written
    return found


def nearest_other_rows(embedding: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the nearest other rows of each of these rows, `(rows, NEAR)` or fewer."""
    unit = unit_rows(embedding.astype(np.float64) - embedding.mean(axis=0, dtype=np.float64))
    cosines = unit[rows] @ unit.T
    cosines[np.arange(len(rows)), rows] = -np.inf
    return np.argsort(-cosines, axis=1, kind="stable")[:, : min(NEAR, len(unit) - 1)]


def children_of(
    corpus: Corpus, signals: Signals, generation: Generation, texts: dict[int, str], inside: NDArray[np.int64]
) -> pa.Table | None:
    """Return the new rows whose parents are `inside`, as the corpus stores rows; None if there are none."""
    wanted = (generation.action != KEEP) & np.isin(generation.parent, inside)
    ids = generation.ids[wanted]
    if not len(ids):
        return None
    tokenizer, length = open_tokenizer(corpus.manifest.tokenizer), corpus.manifest.sequence_length
    rows = np.full((len(ids), length), tokenizer.end, signals.tokens.dtype)
    for row, child in zip(rows, ids.tolist(), strict=True):
        written = tokenizer.encode(texts[child])[:length]
        row[: len(written)] = written
    stored = corpus.store.read_table(corpus.files[0]).schema
    fields = [stored.field("row_id"), stored.field(TOKENS)]
    columns = [pa.array(ids), as_column(rows)]
    return pa.table(columns, schema=pa.schema(fields, metadata=stored.metadata))


def actions_table(signals: Signals, flagged: Flagged) -> pa.Table:
    """Return what was found about each row of a round, and what was done with it."""
    return pa.table(
        {
            "row_id": signals.ids,
            "action": pa.DictionaryArray.from_arrays(flagged.action.astype(np.int32), list(ACTIONS)),
            "seed": flagged.seeds,
            **signals.columns,
        }
    )
