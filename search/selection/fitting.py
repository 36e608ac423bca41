"""What is fitted before rows are scored: shares of n-grams, a model's curvature, heads that look facts up."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.policies.sampling.chance import keys
from shoal.policies.selection.ngrams import log_ratios
from shoal.search.config.run import Run
from shoal.search.config.selection import HeadScore, InfluenceScore, NgramScore, SimilarityScore
from shoal.search.selection.corpora import SAME, Corpus, read_ids, stored_rows
from shoal.search.selection.fitted_influence import fit_influence
from shoal.search.selection.interface import Scoring, tokens_of
from shoal.search.selection.likeness import with_targets
from shoal.search.selection.scorers import bucket_counts
from shoal.search.selection.stages import each_of_files, on_files

FIT_FILES = 2000  # files of the pool, evenly spaced, from which the shares of n-grams are estimated
VALUE_ROWS = 200  # rows of the pool that lend the values that probes ask for


def fitted(
    run: Run,
    corpus: Corpus,
    targets: Corpus | None,
    scoring: Scoring,
    same: str,
    folder: str,
    report: Callable[[str], None],
) -> Scoring:
    """Return the scoring with what its kind has to know before; `folder` is where its columns go."""
    settings = scoring.settings
    if isinstance(settings, NgramScore):
        assert targets is not None
        return scoring._replace(fitted=fit_ratios(run, corpus, targets, settings, same))
    if isinstance(settings, InfluenceScore):
        assert targets is not None
        rows = some_rows(corpus, settings.fit_rows, scoring)
        theirs = {
            name: np.concatenate(
                [tokens_of(stored_rows(targets.store, file)[1], scoring.key, answers=True) for file in files]
            )
            for name, files in files_of(targets).items()
        }
        place = corpus.data.corpus, f"{folder}/{QUERIES}"
        make = partial(fit_influence, scoring._replace(fitted=place), rows, theirs)
        on_files(run, partial(once, make), [QUERIES])
        return scoring._replace(fitted=place)
    if isinstance(settings, HeadScore):
        from shoal.search.selection.probes import find_heads

        rows = some_rows(corpus, VALUE_ROWS, scoring)
        (heads,) = on_files(run, partial(once, partial(find_heads, scoring, rows)), ["heads"])
        return scoring._replace(fitted=heads)
    if isinstance(settings, SimilarityScore):
        assert targets is not None
        return scoring._replace(fitted=with_targets(scoring, targets, run.data.bad_share, report))
    return scoring


QUERIES = "queries.safetensors"


def once(make: Callable[[], Any]) -> Callable[[str], Any]:
    """Return a function of a stage that is called for one thing alone."""
    return lambda name: make()


def files_of(corpus: Corpus) -> dict[str, list[str]]:
    return {name: group.splits["train"].files for name, group in corpus.groups.items()}


def some_rows(corpus: Corpus, count: int, scoring: Scoring) -> NDArray[Any]:
    """Return so many rows at random, or all; which ones depends on their ids alone."""
    ids = read_ids(corpus)
    key = keys(0, "fit", 0, ids)
    chosen = key <= np.sort(key)[min(count, len(key)) - 1]
    parts, start = [], 0
    for file in corpus.files:
        if not chosen[start:].any():
            break
        rows = len(corpus.store.read_table(file, columns=["row_id"]))
        inside = chosen[start : start + rows]
        start += rows
        if inside.any():
            rows_there = stored_rows(corpus.store, file)[1]
            answers = isinstance(scoring.settings, InfluenceScore)
            parts.append(tokens_of(rows_there, scoring.key, answers)[inside])
    return np.concatenate(parts)


class GramCounter:
    """Counts the n-grams of files, without near duplicates, which `same` is the folder of."""

    def __init__(self, corpus: str, settings: NgramScore, same: str):
        self.store, self.settings, self.same = Store(corpus), settings, same

    def __call__(self, file: str) -> NDArray[np.int64]:
        _, rows = stored_rows(self.store, file)
        if self.same:
            told = self.store.read_table(f"{self.same}/{file}")
            rows = rows[(told["row_id"].to_numpy() == told[SAME].to_numpy())]
        return bucket_counts(rows, self.settings, "selection.scores")


def fit_ratios(run: Run, pool: Corpus, targets: Corpus, settings: NgramScore, same: str) -> NDArray[np.float64]:
    """Return the log-ratio of each bucket, in each group of the target over the pool: `(targets, buckets)`."""
    raw = gram_counts(run, pool, settings, evenly(pool.files, FIT_FILES), same)
    found = []
    for group in targets.groups.values():
        counts = gram_counts(run, targets, settings, evenly(group.splits["train"].files, FIT_FILES))
        found.append(log_ratios(counts, raw, settings.pseudo))
    return np.stack(found)


def gram_counts(
    run: Run, corpus: Corpus, settings: NgramScore, files: list[str], same: str = ""
) -> NDArray[np.int64]:
    """Return how often each bucket stands in these files, `(buckets,)`; they are summed as they come."""
    found = np.zeros(settings.buckets, np.int64)
    for counts in each_of_files(run, partial(GramCounter, corpus.data.corpus, settings, same), files):
        found += counts
    return found


def evenly(files: list[str], most: int) -> list[str]:
    """Return at most so many files, evenly spaced."""
    if len(files) <= most:
        return files
    return [files[place] for place in np.linspace(0, len(files) - 1, most).astype(int).tolist()]
