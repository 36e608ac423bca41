"""What adds columns to rows: n-grams, exported models, tables, and classes of the user's own.

A scorer is made once in each process, `open_scorer`, and then called with rows and their ids.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shoal.cluster.rows import by_field
from shoal.cluster.storage import Store
from shoal.policies.selection.ngrams import Buckets, token_buckets
from shoal.search.config.selection import (
    DifferenceScore,
    EmbeddingScore,
    GradientScore,
    LossScore,
    NgramScore,
    OwnScore,
    TableScore,
)
from shoal.search.corpus.manifest import Manifest
from shoal.search.errors import InputError
from shoal.search.exported import check_exported, read_exported

ScoreColumns = dict[str, NDArray[Any]]
RowScorer = Callable[[Any, NDArray[np.int64]], ScoreColumns]  # (rows, ids) -> columns
SMALLEST_LOSS = 1e-3  # a share of a smaller loss would be noise


class Scoring(NamedTuple):
    """All that a process needs to make a scorer; it pickles."""

    settings: Any  # a section of `selection.scores`
    key: str  # its place in the file, for messages
    length: int  # tokens of a row
    device: str = "cpu"
    ratios: NDArray[np.float64] | None = None  # (targets, buckets), for n-grams
    code: str = ""  # folder of a class of the user's own


def tokens_of(rows: Any, key: str) -> NDArray[np.unsignedinteger]:
    """Return rows of plain tokens `(rows, length)`; raises InputError for rows of another kind."""
    if rows.dtype.names is None:
        return np.asarray(rows)
    raise InputError(
        f"{key}: looks at rows of plain tokens, but these have {', '.join(rows.dtype.names)}; give scores in a "
        f"table, or by a class of your own."
    )


def open_scorer(scoring: Scoring) -> RowScorer:
    return OPENERS[type(scoring.settings)](scoring)


def _ngrams(scoring: Scoring) -> RowScorer:
    settings, ratios = scoring.settings, scoring.ratios
    assert ratios is not None

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        found = counted_buckets(rows, settings, scoring.key)
        columns = [ratio[found].sum(axis=1) for ratio in ratios]
        length = np.full(len(ids), rows.shape[1], np.int64)
        # one target makes one number a row, by which other policies can go too
        together = np.stack(columns, axis=1) if len(columns) > 1 else columns[0]
        return {"log_ratio": together, "length": length}

    return score


def counted_buckets(rows: Any, settings: NgramScore, key: str) -> Buckets:
    return token_buckets(tokens_of(rows, key), settings.grams, settings.buckets)


def _decoder(key: str, folder: str, length: int, device: str) -> Any:
    from safetensors.numpy import load

    from shoal.trainables.decoder import trained_decoder
    from shoal.trainables.settings import DecoderShape

    shape = DecoderShape(**read_exported(key, folder)["shape"])
    return trained_decoder(shape, load(Store(folder).read("model.safetensors")), length, device)


def _loss(scoring: Scoring) -> RowScorer:
    from shoal.trainables.scoring import row_losses

    settings = scoring.settings
    model = _decoder(scoring.key, settings.model, scoring.length, scoring.device)
    return lambda rows, ids: {settings.column: row_losses(model, tokens_of(rows, scoring.key))}


def _difference(scoring: Scoring) -> RowScorer:
    from shoal.trainables.scoring import row_losses

    settings = scoring.settings
    model, base = (
        _decoder(scoring.key, folder, scoring.length, scoring.device)
        for folder in (settings.model, settings.base)
    )

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        tokens = tokens_of(rows, scoring.key)
        below = row_losses(base, tokens).astype(np.float64)
        found = row_losses(model, tokens) - below
        if settings.relative:
            found = found / np.maximum(below, SMALLEST_LOSS)
        return {settings.column: found}

    return score


def _embedding(scoring: Scoring) -> RowScorer:
    from shoal.trainables.scoring import row_states

    model = _decoder(scoring.key, scoring.settings.model, scoring.length, scoring.device)
    return lambda rows, ids: {"embedding": row_states(model, tokens_of(rows, scoring.key))}


def _gradients(scoring: Scoring) -> RowScorer:
    from shoal.trainables.scoring import row_sketches

    model = _decoder(scoring.key, scoring.settings.model, scoring.length, scoring.device)
    return lambda rows, ids: {
        "sketch": row_sketches(model, tokens_of(rows, scoring.key), scoring.settings.width)
    }


def _table(scoring: Scoring) -> RowScorer:
    table = read_score_table(scoring.key, scoring.settings.path)
    known = table["row_id"].to_numpy()
    order = np.argsort(known, kind="stable")
    columns = {
        name: as_array(table[name]).astype(np.float64) for name in table.column_names if name != "row_id"
    }

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        place = order[np.searchsorted(known, ids, sorter=order).clip(max=len(known) - 1)]
        there = known[place] == ids
        return {
            name: np.where(there.reshape(-1, *[1] * (values.ndim - 1)), values[place], np.nan)
            for name, values in columns.items()
        }

    return score


def read_score_table(key: str, path: str) -> pa.Table:
    """Return a table of scores; raises InputError where it is none."""
    try:
        with open(path, "rb") as file:
            table = pq.read_table(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{key}.path: {path} cannot be read as Parquet: {' '.join(str(error).split())}"
        ) from error
    if "row_id" not in table.column_names or not pa.types.is_int64(table.schema.field("row_id").type):
        raise InputError(f"{key}.path: {path} must have a column row_id of int64, got {table.column_names}.")
    if len(table) == 0 or len(table.column_names) < 2:
        raise InputError(f"{key}.path: {path} must have at least one row and one score beside row_id.")
    return table


def _own(scoring: Scoring) -> RowScorer:
    made = own_scorer(scoring.key, scoring.settings.made, scoring.code)

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        found = made.score(by_field(rows))
        if not isinstance(found, Mapping) or not found:
            raise InputError(
                f"{scoring.key}: score(rows) must return columns by name, got {type(found).__name__}."
            )
        columns = {str(name): np.asarray(values) for name, values in found.items()}
        for name, values in columns.items():
            if values.shape[:1] != ids.shape or values.ndim > 2 or values.dtype.kind not in "fiub":
                raise InputError(
                    f"{scoring.key}: column {name} must hold a number, or a vector, for each of {len(ids)} "
                    f"rows, got {values.dtype} of shape {values.shape}."
                )
        return columns

    return score


def own_scorer(key: str, made: str, folder: str) -> Any:
    """Return an object of the user's class, which lies in `folder` or in the working folder."""
    name, _, attribute = made.partition(":")
    for each in (os.getcwd(), folder):
        if each and each not in sys.path:
            sys.path.insert(0, each)
    try:
        importlib.invalidate_caches()
        found = getattr(importlib.import_module(name), attribute)()
    except Exception as error:  # whatever a file of the user's may raise
        said = " ".join(str(error).split())
        raise InputError(f"{key}.made: {made} cannot be made: {type(error).__name__}: {said}") from error
    if not callable(getattr(found, "score", None)):
        raise InputError(f"{key}.made: {made} must have a method score(rows), but has none.")
    return found


OPENERS: dict[type, Callable[[Scoring], RowScorer]] = {
    NgramScore: _ngrams,
    LossScore: _loss,
    DifferenceScore: _difference,
    EmbeddingScore: _embedding,
    GradientScore: _gradients,
    TableScore: _table,
    OwnScore: _own,
}


def models_of(settings: Any) -> dict[str, str]:
    """Return key -> folder of the exported models that a score looks at."""
    return {key: getattr(settings, key) for key in ("model", "base") if hasattr(settings, key)}


def check_models(settings: Any, key: str, manifest: Manifest) -> None:
    """Raise InputError where a model is not there, or reads other tokens than the corpus has."""
    for name, folder in models_of(settings).items():
        check_exported(f"{key}.{name}", folder, manifest.tokenizer, manifest.vocabulary)


def as_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column of numbers `(rows,)`, or of lists of one length `(rows, width)`."""
    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if (
        pa.types.is_list(whole.type)
        or pa.types.is_fixed_size_list(whole.type)
        or pa.types.is_large_list(whole.type)
    ):
        return np.asarray(whole.flatten().to_numpy(zero_copy_only=False).reshape(len(whole), -1))
    return np.asarray(whole.to_numpy(zero_copy_only=False))


def as_list_column(values: NDArray[Any]) -> pa.Array:
    """Return an array as a column: numbers, or lists of one length."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1]
    )
