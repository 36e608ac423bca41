"""Likeness of rows to the target by vectors: which column has them, and the target's own, read beforehand."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.policies.selection.likeness import directions, likeness, mean_direction
from shoal.search.config.selection import HeadScore, InfluenceScore, NgramScore, SimilarityScore
from shoal.search.errors import InputError
from shoal.search.selection.corpora import Corpus, ScoreColumns, as_array, column_names, stored_rows
from shoal.search.selection.interface import RowScorer, Scoring, has_texts


class Vectors(NamedTuple):
    """Where vectors are: folders of scores of the pool and of the target, none if rows have them as a field."""

    folder: str
    theirs: str
    targets: tuple[NDArray[np.float64], ...] = ()  # rows of each target, or their mean, at length 1


def likeness_scorer(scoring: Scoring) -> RowScorer:
    """Return what scores vectors; it is given them in place of rows."""
    settings, targets = scoring.settings, scoring.fitted.targets

    def score(vectors: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        if vectors.shape[1] != (width := targets[0].shape[1]):
            raise InputError(
                f"{scoring.key}.vectors: {settings.vectors} must have one width in pool and target, but has "
                f"{vectors.shape[1]} and {width}."
            )
        return {settings.column: likeness(vectors, targets, settings.nearest)}

    return score


def stored_vectors(
    store: Store, file: str, scoring: Scoring, folder: str
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the ids of a file's rows and their vectors, `(rows, width)`."""
    name = scoring.settings.vectors
    if folder:
        table = store.read_table(f"{folder}/{file}", columns=["row_id", name])
        ids, found = table["row_id"].to_numpy(), as_array(table[name])
    else:
        ids, rows = stored_rows(store, file)
        found = rows[name].reshape(len(rows), -1) if rows[name].ndim > 1 else rows[name]
    if found.ndim != 2 or found.dtype.kind not in "fiub":
        raise InputError(f"{scoring.key}.vectors: {name} must hold a vector of numbers for each row.")
    return ids, found


def vectors_for(
    scoring: Scoring,
    pool: Corpus,
    before: Iterable[tuple[Scoring, str]],
    score_target: Callable[[Scoring], str],
) -> Vectors:
    """Return where the vectors are; raises InputError where there are none.

    `before` has the scores so far with the folders of their columns; `score_target` makes a score's columns of
    the target's rows and returns their folder.
    """
    row_type = pool.manifest.row_type
    # tokens and their masks are numbers, but no vectors
    name, known = scoring.settings.vectors, set[str]() if has_texts(row_type) else set(row_type.names or ())
    for made, folder in before:
        columns = column_names(pool, [folder])
        known |= columns
        if name not in columns:
            continue
        if isinstance(made.settings, NgramScore | InfluenceScore | HeadScore | SimilarityScore):
            raise InputError(
                f"{scoring.key}.vectors: must be of pool and target, but {made.settings.kind} scores the pool."
            )
        return Vectors(folder, score_target(made))
    if name not in known:
        raise InputError(
            f"{scoring.key}.vectors: must be a column of a score before it, or of the rows, got {name}; there "
            f"are {', '.join(sorted(known)) or 'none'}."
        )
    return Vectors("", "")


def with_targets(scoring: Scoring, targets: Corpus, bad_share: float, report: Callable[[str], None]) -> Vectors:
    """Return the vectors with the target's own, without rows that have no direction.

    Raises InputError where these are more than `bad_share` of a target, or nothing is left to compare with.
    """
    settings, found = scoring.settings, []
    for name, group in targets.groups.items():
        files = group.splits["train"].files
        parts = [stored_vectors(targets.store, file, scoring, scoring.fitted.theirs)[1] for file in files]
        unit, known = directions(np.concatenate(parts))
        bad, place = int((~known).sum()), f"selection.target.{name}"
        said = f"{bad} of {len(known)} rows have a {settings.vectors} that is not finite or all zeros"
        if bad > bad_share * len(known):
            raise InputError(
                f"{place}: {said}, more than data.bad_share ({bad_share:g}) allows; mend what makes them."
            )
        if bad:
            report(f"{place}: {said}, and are left out of {scoring.key}")
        unit = unit[known]
        if settings.over == "mean":
            unit = mean_direction(unit)
            if not unit.any():
                raise InputError(
                    f"{place}: the mean of its {settings.vectors} must have a direction, but is 0; take "
                    f"over: nearest."
                )
        found.append(unit)
    return scoring.fitted._replace(targets=tuple(found))
