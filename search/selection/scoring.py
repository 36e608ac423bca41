"""Columns for all training rows of a corpus, file by file, made once and kept beside it.

The columns of a score lie in `scores/KIND-KEY` of the corpus, a file for each training file. The key is a hash
of the rows, the score's settings, the models' weights and, for n-grams, the target's rows: another budget or
another policy finds them again. A file that is there is whole, so a stage that was killed goes on after it; the
record is written last.
"""

import contextlib
import hashlib
import json
import pickle
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray

from shoal.cluster.rows import as_rows
from shoal.cluster.session import capacity
from shoal.cluster.storage import Store
from shoal.policies.selection.ngrams import log_ratios
from shoal.search.config.run import Run
from shoal.search.config.sections import Data
from shoal.search.config.selection import NgramScore, TableScore
from shoal.search.corpus.manifest import Group, Manifest
from shoal.search.corpus.scores import CPUS, FOLDER, RECORD, hex_digest
from shoal.search.corpus.stages import TaskRefusal, accepted, connected
from shoal.search.errors import InputError
from shoal.search.selection.scorers import (
    ScoreColumns,
    Scoring,
    as_array,
    as_list_column,
    check_models,
    counted_buckets,
    models_of,
    open_scorer,
)

SAME = "same_as"  # column of the row that each one is a near duplicate of
FORMAT = 1  # another number makes other keys, when a kind of score makes other columns
FIT_FILES = 2000  # files of the pool, evenly spaced, from which the shares of n-grams are estimated
Found = TypeVar("Found")


class Corpus(NamedTuple):
    """A corpus whose rows are scored: a pool, or a target."""

    data: Data
    manifest: Manifest
    unseen: tuple[str, ...] = ()  # groups on which no member trains: nothing is chosen of them

    @property
    def groups(self) -> dict[str, Group]:
        return {name: group for name, group in self.manifest.groups.items() if name not in self.unseen}

    @property
    def store(self) -> Store:
        return Store(self.data.corpus)

    @property
    def files(self) -> list[str]:
        """The training files of all groups, in the groups' order."""
        return [file for group in self.groups.values() for file in group.splits["train"].files]

    @property
    def rows(self) -> int:
        return sum(group.splits["train"].rows for group in self.groups.values())


def stored_rows(store: Store, file: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the ids and the rows of one of a corpus's files."""
    table = store.read_table(file)
    return table["row_id"].to_numpy(), as_rows(table)


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
        ids, rows = stored_rows(self.store, file)
        found = self.score(rows, ids)
        columns = {name: as_list_column(values) for name, values in found.items()}
        self.store.write_table(place, pa.table({"row_id": ids, **columns}))
        return len(ids)


class GramCounter:
    """Counts the n-grams of files, without near duplicates, which `same` is the folder of."""

    def __init__(self, corpus: str, settings: NgramScore, same: str):
        self.store, self.settings, self.same = Store(corpus), settings, same

    def __call__(self, file: str) -> NDArray[np.int64]:
        _, rows = stored_rows(self.store, file)
        if self.same:
            told = self.store.read_table(f"{self.same}/{file}")
            rows = rows[(told["row_id"].to_numpy() == told[SAME].to_numpy())]
        found = counted_buckets(rows, self.settings, "selection.scores")
        return np.bincount(found.ravel(), minlength=self.settings.buckets)


class StageWorker:
    """What a stage's actor does: it makes the function once, and applies it to each file."""

    def __init__(self, make: Callable[[], Callable[[str], Any]]):
        import torch

        torch.set_num_threads(1)
        self.function = make()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = []
        for file in batch["file"].tolist():
            try:
                found.append(pickle.dumps(self.function(file)))
            except (InputError, OSError) as error:  # raised here, they would arrive inside Ray's trace
                found.append(pickle.dumps(TaskRefusal(error)))
        return {"file": batch["file"], "found": np.array(found, object)}


def on_files(run: Run, make: Callable[[], Callable[[str], Found]], files: list[str]) -> list[Found]:
    """Apply a function to each file, in order: on the cluster, or here with `data.builder: local`."""
    gpus = run.cluster.gpus_per_worker
    if run.data.builder == "local" and not gpus:
        function = make()
        return [function(file) for file in files]
    with contextlib.nullcontext() if ray.is_initialized() else connected():
        return on_stage(make, files, gpus)


def on_stage(make: Callable[[], Callable[[str], Found]], files: list[str], gpus: float) -> list[Found]:
    """Apply a function to each file in a stage of Ray Data, by as many actors as there is room for."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    had = capacity()
    actors = int(had.get("GPU", 0.0) / gpus) if gpus else int(had["CPU"])
    names = ray.data.from_items([{"file": file} for file in files], override_num_blocks=len(files))
    stage = names.map_batches(
        StageWorker,
        fn_constructor_args=(make,),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=max(1, min(actors, len(files)))),
        num_gpus=gpus or None,
        num_cpus=None if gpus else CPUS,
    )
    # Ray Data keeps no order of its own
    found = {row["file"]: accepted(pickle.loads(row["found"])) for row in stage.take_all()}
    return [found[file] for file in files]


def add_scores(
    run: Run, pool: Corpus, targets: Corpus | None, same: str, aimed: bool, report: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Score the pool, and the target too if `aimed`; return the folders of the columns of each.

    `same` is the folder of what near duplicates were found, or empty.
    """
    assert run.selection is not None
    folders, theirs = [], []
    for place, settings in enumerate(run.selection.all_scores()):
        key = f"selection.scores.{place}"
        check_models(settings, key, pool.manifest)
        scoring = Scoring(settings, key, run.data.sequence_length, run.device, None, run.code)
        folders.append(scored(run, pool, targets, scoring, same, report))
        if aimed and targets is not None and not isinstance(settings, NgramScore | TableScore):
            theirs.append(scored(run, targets, None, scoring, "", report))
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
        key: hex_digest(Store(folder).read("model.safetensors")) for key, folder in models_of(settings).items()
    }
    named = {
        "format": FORMAT,
        "settings": settings.model_dump(),
        "weights": weights,
        "content": corpus.manifest.content,
        "target": [targets.manifest.content, same] if targets and isinstance(settings, NgramScore) else None,
        "path": hex_digest(Store(settings.path).read("")) if isinstance(settings, TableScore) else None,
    }
    folder = f"{FOLDER}/{settings.kind}-{hex_digest(json.dumps(named, sort_keys=True).encode())[:16]}"
    if store.exists(f"{folder}/{RECORD}"):
        return folder
    if isinstance(settings, NgramScore):
        assert targets is not None
        scoring = scoring._replace(ratios=fit_ratios(run, corpus, targets, settings, same))
    began = time.perf_counter()
    rows = sum(on_files(run, partial(FileScorer, corpus.data.corpus, folder, scoring), corpus.files))
    seconds = time.perf_counter() - began
    store.write_json(f"{folder}/{RECORD}", {**named, "rows": corpus.rows, "seconds": round(seconds, 3)})
    report(f"{scoring.key}: {settings.kind}, {rows} rows scored in {seconds:.1f} s, kept in {folder}")
    return folder


def fit_ratios(run: Run, pool: Corpus, targets: Corpus, settings: NgramScore, same: str) -> NDArray[np.float64]:
    """Return the log-ratio of each bucket, in each group of the target over the pool: `(targets, buckets)`."""
    raw = sum(gram_counts(run, pool, settings, evenly(pool.files, FIT_FILES), same))
    found = []
    for group in targets.groups.values():
        counts = sum(gram_counts(run, targets, settings, evenly(group.splits["train"].files, FIT_FILES)))
        found.append(log_ratios(np.asarray(counts), np.asarray(raw), settings.pseudo))
    return np.stack(found)


def gram_counts(
    run: Run, corpus: Corpus, settings: NgramScore, files: list[str], same: str = ""
) -> list[NDArray[np.int64]]:
    return on_files(run, partial(GramCounter, corpus.data.corpus, settings, same), files)


def evenly(files: list[str], most: int) -> list[str]:
    """Return at most so many files, evenly spaced."""
    if len(files) <= most:
        return files
    return [files[place] for place in np.linspace(0, len(files) - 1, most).astype(int).tolist()]


def read_columns(corpus: Corpus, folders: list[str], names: set[str] | None = None) -> ScoreColumns:
    """Return these columns of all training rows in the order of the files; `names` None reads all."""
    parts: dict[str, list[NDArray[Any]]] = {}
    store = corpus.store
    for folder in folders:
        for file in corpus.files:
            table = store.read_table(f"{folder}/{file}")
            for name in table.column_names:
                if name != "row_id" and (names is None or name in names):
                    parts.setdefault(name, []).append(as_array(table[name]))
    return {name: np.concatenate(each) for name, each in parts.items()}


def read_ids(corpus: Corpus) -> NDArray[np.int64]:
    parts = [corpus.store.read_table(file, columns=["row_id"])["row_id"].to_numpy() for file in corpus.files]
    return np.concatenate(parts)


def read_groups(corpus: Corpus) -> NDArray[np.int64]:
    """Return the number of each training row's group, in the order of the files."""
    rows = [group.splits["train"].rows for group in corpus.groups.values()]
    return np.repeat(np.arange(len(rows)), rows)


def key_of_values(values: Mapping[str, Any]) -> str:
    """Return a hash of plain values, for names of what follows from them."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()
