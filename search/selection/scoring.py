"""Columns for all training rows of a corpus, file by file, made once and kept beside it.

The columns of a score lie in `scores/KIND-KEY` of the corpus, a file for each training file. The key is a hash
of the rows, the score's settings, the models' weights and, for n-grams, the target's rows: another budget or
another policy finds them again. A file that is there is whole, so a stage that was killed goes on after it; the
record is written last.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.config.selection import (
    HeadScore,
    InfluenceScore,
    NgramScore,
    OwnScore,
    SimilarityScore,
    TableScore,
    twice_made,
)
from shoal.search.corpus.scores import FOLDER, RECORD, hex_digest
from shoal.search.errors import InputError
from shoal.search.selection.corpora import (
    Corpus,
    as_list_column,
    check_same_columns,
    column_names,
    stored_rows,
)
from shoal.search.selection.fitting import fitted
from shoal.search.selection.held_out import HELD_OUT_FILE, held_out_ratios, wants_held_out
from shoal.search.selection.interface import Scoring
from shoal.search.selection.language import digest_of_weights
from shoal.search.selection.likeness import stored_vectors, vectors_for
from shoal.search.selection.model_scorers import check_models, models_of
from shoal.search.selection.scorers import digest_of_code, open_scorer
from shoal.search.selection.stages import on_files

OF_POOL = NgramScore | InfluenceScore | HeadScore | SimilarityScore | TableScore
FORMAT = 1  # another number makes other keys, when a kind of score makes other columns


class FileScorer:
    """Scores files and writes their columns; one in each process."""

    def __init__(self, corpus: str, folder: str, scoring: Scoring):
        self.store, self.folder, self.scoring = Store(corpus), folder, scoring
        self.score: Any = None

    def __call__(self, file: str) -> int:
        """Return how many rows were scored; none if an earlier stage has scored the file."""
        place = f"{self.folder}/{file}"
        if self.store.exists(place):
            return 0
        if self.score is None:
            self.score = open_scorer(self.scoring)
        ids, rows = self.read(file)
        found = self.score(rows, ids)
        columns = {name: as_list_column(values) for name, values in found.items()}
        self.store.write_table(place, pa.table({"row_id": ids, **columns}))
        return len(ids)

    def read(self, file: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return the ids of a file's rows and what is scored of them: the rows, or vectors made of them."""
        if isinstance(self.scoring.settings, SimilarityScore):
            return stored_vectors(self.store, file, self.scoring, self.scoring.fitted.folder)
        return stored_rows(self.store, file)


def add_scores(
    run: Run, pool: Corpus, targets: Corpus | None, same: str, aimed: bool, report: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Score the pool, and the target too if `aimed`; return the folders of the columns of each.

    `same` is the folder of what near duplicates were found, or empty.
    """
    assert run.selection is not None
    folders, theirs, before = list[str](), list[str](), list[Scoring]()

    def score_target(scoring: Scoring) -> str:
        assert targets is not None, "the file was checked"
        return scored(run, targets, None, scoring, "", report)

    for place, settings in enumerate(run.selection.all_scores()):
        key = f"selection.scores.{place}"
        check_models(settings, key, pool.manifest)
        tokenizer = pool.manifest.tokenizer
        scoring = Scoring(settings, key, run.data.sequence_length, run.device, tokenizer, None, run.code)
        if isinstance(settings, SimilarityScore):
            earlier = zip(before, folders, strict=True)
            scoring = scoring._replace(fitted=vectors_for(scoring, pool, earlier, score_target))
        made, known = scored(run, pool, targets, scoring, same, report), column_names(pool, folders)
        if problem := twice_made(column_names(pool, [made]), known, bool(run.selection.mix)):
            raise InputError(f"{key}: {problem}.")
        folders.append(made)
        before.append(scoring)
        # these look at the target as they score the pool, or know nothing of its rows
        of_pool = isinstance(settings, OF_POOL)
        if aimed and targets is not None and not of_pool:
            theirs.append(score_target(scoring))
    return folders, theirs


def scored(
    run: Run,
    corpus: Corpus,
    targets: Corpus | None,
    scoring: Scoring,
    same: str,
    report: Callable[[str], None],
) -> str:
    """Return the folder of a score's columns; make what is not there yet."""
    settings, store = scoring.settings, corpus.store
    weights = {
        name: digest_of_weights(f"{scoring.key}.{name}", model) for name, model in models_of(settings).items()
    }
    compared = targets is not None and isinstance(settings, NgramScore | InfluenceScore | SimilarityScore)
    named = {
        "format": FORMAT,
        "settings": settings.model_dump(),
        "weights": weights,
        "content": corpus.manifest.content,
        "target": [targets.manifest.content, same] if targets and compared else None,
        "path": hex_digest(Store(settings.path).read("")) if isinstance(settings, TableScore) else None,
    }
    if isinstance(settings, OwnScore):
        named["code"] = digest_of_code(settings.made, scoring.code)
    if isinstance(settings, SimilarityScore):
        named["vectors"] = scoring.fitted.folder  # its name holds a hash of what made them
    folder = f"{FOLDER}/{settings.kind}-{hex_digest(json.dumps(named, sort_keys=True).encode())[:16]}"
    held_out = f"{folder}/{HELD_OUT_FILE}" if targets and wants_held_out(run, settings) else ""
    if store.exists(f"{folder}/{RECORD}") and (not held_out or store.exists(held_out)):
        return folder
    scoring = fitted(run, corpus, targets, scoring, same, folder, report)
    if targets is not None and held_out:
        store.write_table(held_out, held_out_ratios(targets, open_scorer(scoring)))
    began = time.perf_counter()
    rows = sum(on_files(run, partial(FileScorer, corpus.data.corpus, folder, scoring), corpus.files))
    seconds = time.perf_counter() - began
    if isinstance(settings, OwnScore):
        check_same_columns(corpus, folder, scoring.key)
    store.write_json(f"{folder}/{RECORD}", {**named, "rows": corpus.rows, "seconds": round(seconds, 3)})
    report(f"{scoring.key}: {settings.kind}, {rows} rows scored in {seconds:.1f} s, kept in {folder}")
    return folder
