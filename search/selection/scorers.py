"""What adds columns to rows: n-grams, tables, classes of the user's own, and models (`model_scorers`)."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shoal.cluster.rows import by_field
from shoal.policies.selection.ngrams import Buckets, token_buckets
from shoal.search.config.selection import (
    ChesScore,
    ClassScore,
    DifferenceScore,
    EmbeddingScore,
    GradientScore,
    HeadScore,
    InfluenceScore,
    LossScore,
    NgramScore,
    OwnScore,
    SimilarityScore,
    TableScore,
)
from shoal.search.corpus.scores import hex_digest
from shoal.search.errors import InputError
from shoal.search.selection import model_scorers
from shoal.search.selection.corpora import ScoreColumns, as_array, parts_of
from shoal.search.selection.interface import RowScorer, Scoring, counted_texts
from shoal.search.selection.likeness import likeness_scorer
from shoal.search.traces import in_one_line, trace_of

MOST_BYTES = 8  # a number of more bytes cannot be stored


def open_scorer(scoring: Scoring) -> RowScorer:
    return OPENERS[type(scoring.settings)](scoring)


def _ngrams(scoring: Scoring) -> RowScorer:
    settings = scoring.settings
    ratios = np.pad(scoring.fitted, ((0, 0), (0, 1)))  # (targets, buckets and the one that stands for none)

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        tokens, segment = counted_texts(rows, scoring.key)
        parts = [
            np.stack([ratio[found].sum(axis=1) for ratio in ratios], axis=1)
            for found in bucket_parts(tokens, segment, settings)
        ]
        found = np.concatenate(parts)
        whole = np.full(len(ids), tokens.shape[1], np.int64)
        length = whole if segment is None else (segment > 0).sum(axis=1)
        # one target makes one number a row, by which other policies can go too
        together = found if len(ratios) > 1 else found[:, 0]
        return {"log_ratio": together, "length": length}

    return score


def bucket_counts(rows: Any, settings: NgramScore, key: str) -> Buckets:
    """Return how often each bucket stands in rows, `(buckets,)`."""
    tokens, segment = counted_texts(rows, key)
    found = np.zeros(settings.buckets + 1, np.int64)
    for part in bucket_parts(tokens, segment, settings):
        found += np.bincount(part.ravel(), minlength=len(found))
    return found[:-1]


def bucket_parts(
    tokens: NDArray[Any], segment: NDArray[np.integer] | None, settings: NgramScore
) -> Iterator[Buckets]:
    """Yield the buckets of rows' n-grams, `(rows, n-grams)`, for some rows at a time."""
    for part in parts_of(tokens):
        inside = None if segment is None else segment[part]
        yield token_buckets(tokens[part], settings.grams, settings.buckets, inside)


def _table(scoring: Scoring) -> RowScorer:
    table = read_score_table(scoring.key, scoring.settings.path)
    known = table["row_id"].to_numpy()
    order = np.argsort(known, kind="stable")
    columns = {
        name: table_column(scoring, name, table[name]) for name in table.column_names if name != "row_id"
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


def table_column(scoring: Scoring, name: str, column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a table's column as numbers, or vectors of one length; raises InputError where it holds others."""
    kind, one_length = column.type, True
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, one_length = kind.value_type, len(set(pc.list_value_length(column).to_pylist())) == 1
    if not one_length or not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    ):
        raise InputError(
            f"{scoring.key}.path: column {name} of {scoring.settings.path} must hold numbers, or vectors of "
            f"one length, got {column.type}{'' if one_length else ' of several lengths'}."
        )
    return as_array(column).astype(np.float64)


def _own(scoring: Scoring) -> RowScorer:
    made = own_object(scoring.key, scoring.settings.made, scoring.code, "score(rows)")

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        found = answer_of(scoring.key, made, "score", by_field(rows))
        if not isinstance(found, Mapping) or not found:
            raise InputError(
                f"{scoring.key}: score(rows) must return columns by name, got {type(found).__name__}."
            )
        return {
            str(name): own_column(scoring.key, str(name), values, len(ids)) for name, values in found.items()
        }

    return score


def own_column(key: str, name: str, values: Any, rows: int) -> NDArray[Any]:
    """Return what a class of the user's own gives as a column of the rows; raises InputError if it is none."""
    must = f"{key}: column {name} must hold a number, or a vector, for each of {rows} rows"
    if name == "row_id":
        raise InputError(f"{key}: column row_id is made by Shoal; give what score(rows) returns another name.")
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{must}, got {type(values).__name__}s of several lengths.") from error
    except Exception as error:  # a tensor on a GPU, or one that has a gradient
        said = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"{must}, got a {type(values).__name__}: {said}.") from error
    good = found.shape[:1] == (rows,) and (found.ndim == 1 or (found.ndim == 2 and found.shape[1]))
    if not good or found.dtype.kind not in "fiub" or found.itemsize > MOST_BYTES:
        raise InputError(f"{must}, got {found.dtype} of shape {found.shape}.")
    # whole numbers in one file and others in the next are one column
    kept = found.dtype.newbyteorder("=") if found.dtype.kind == "f" else np.dtype(np.float64)
    return found.astype(kept, copy=False)


def own_object(key: str, made: str, folder: str, method: str) -> Any:
    """Return an object of the user's class, which has a method; it lies in `folder` or the working folder."""
    name, _, attribute = made.partition(":")
    look_in(folder)
    try:
        found = getattr(importlib.import_module(name), attribute)()
    except (Exception, SystemExit) as error:  # whatever a file of the user's may raise
        said = in_one_line(trace_of(error))
        raise InputError(f"{key}.made: {made} cannot be made: {said}") from error
    if not callable(getattr(found, method.partition("(")[0], None)):
        raise InputError(f"{key}.made: {made} must have a method {method}, but has none.")
    return found


def answer_of(key: str, made: Any, method: str, given: Any) -> Any:
    """Return what a method of the user's object answers; raises InputError with the line where it raises."""
    try:
        return getattr(made, method)(given)
    except (Exception, SystemExit) as error:  # whatever a file of the user's may raise
        said = in_one_line(trace_of(error))
        raise InputError(f"{key}.made: {method} of {type(made).__name__} failed: {said}") from error


def digest_of_code(made: str, folder: str) -> str | None:
    """Return a hash of the file of the user's class, or None where it has none; what it imports is not read."""
    look_in(folder)
    try:
        found = importlib.util.find_spec(made.partition(":")[0])
        with open(str(found and found.origin), "rb") as file:
            return hex_digest(file.read())
    except Exception:  # a package's own code runs; what is wrong with it is said where the class is made
        return None


def look_in(folder: str) -> None:
    """Let modules of a folder, and of the working folder, be imported."""
    for each in (os.getcwd(), folder):
        if each and each not in sys.path:
            sys.path.insert(0, each)
    importlib.invalidate_caches()  # a file may be younger than the last look


OPENERS: dict[type, Callable[[Scoring], RowScorer]] = {
    NgramScore: _ngrams,
    LossScore: model_scorers.loss_scorer,
    DifferenceScore: model_scorers.difference_scorer,
    EmbeddingScore: model_scorers.embedding_scorer,
    GradientScore: model_scorers.gradient_scorer,
    ClassScore: model_scorers.class_scorer,
    InfluenceScore: model_scorers.influence_scorer,
    HeadScore: model_scorers.head_scorer,
    ChesScore: model_scorers.ches_scorer,
    SimilarityScore: likeness_scorer,
    TableScore: _table,
    OwnScore: _own,
}
